"""What a dry run predicts of a GPU: counts by hand, memory by PyTorch's own account, times by closed forms."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from benchmarks.prediction import counts_of, measured_peak, preset_rows, samples_of
from imagegen_dist.cli.prediction import no_cluster_machine
from imagegen_dist.cli.train import main_gan, main_vae
from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.models.r3gan import R3GANConfig
from imagegen_dist.prediction.counting import Kernel, OperatorCounter, StepCount, count_step
from imagegen_dist.prediction.gpus import GPU_TYPES, MACHINES, gpu_type, machine_for
from imagegen_dist.prediction.predict import BANDWIDTH_SHARE, LAUNCH_S, Forecast, Samples
from imagegen_dist.presets import PRESETS
from imagegen_dist.schedule import constant
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store

ROOT = Path(__file__).parents[1]


def network_flops(config: R3GANConfig, extent: int) -> int:
    """FLOPs of one pass of either network over one sample, by hand, without filters and what is at one position.

    Blocks: 1×1 up, 3×3 in groups, 1×1 down. Between stages 1×1 where the width changes, at the lower extent; 1×1
    between the highest stage and three channels.
    """
    total = 2 * extent**2 * 3 * config.widths[-1]
    for stage, width in enumerate(config.widths):
        positions = (extent // 2 ** (len(config.widths) - 1 - stage)) ** 2
        inner = config.expansion * width
        weights = width * inner + inner * config.group_channels * 9 + inner * width
        total += config.blocks_per_stage * 2 * positions * weights
        if stage and config.widths[stage - 1] != width:
            total += 2 * positions // 4 * config.widths[stage - 1] * width
    return total


@pytest.mark.parametrize(
    ("preset", "gflop"),
    [
        ("r3gan-cifar10", 267),
        ("r3gan-ffhq64", 497),
        ("r3gan-ffhq256", 1095),
        ("r3gan-imagenet32", 1067),
        ("r3gan-imagenet64", 4282),
    ],
)
def test_flops_of_r3gan_are_nineteen_passes_of_its_blocks(preset: str, gflop: int) -> None:
    """Discriminator's turn: 1 pass of the generator; of the discriminator, for reals and for fakes, 1 forward, 1 for
    the input's gradient, 2 for the gradients of that one, 2 backward. In the
    generator's turn: 1 pass over reals, 2 over fakes, without gradients of weights, and 3 of the generator.
    """
    config, shape = PRESETS[preset].experiment.model, PRESETS[preset].shape
    assert isinstance(config, R3GANConfig)
    assert shape
    passes = (1 + 2 * 6) + (1 + 2 + 3)
    assert passes * network_flops(config, shape.spatial[0]) / 1e9 == pytest.approx(gflop, rel=0.005)


@pytest.mark.parametrize(("penalty_every", "passes"), [(1, 19), (4, (19 + 3 * 13) / 4)])
def test_the_count_of_r3gan_is_that_by_hand(penalty_every: int, passes: float) -> None:
    """Without the penalty, the discriminator's turn goes backward once: 2 for each side in place of 5."""
    config = R3GANConfig(widths=(48, 32), group_channels=16, resample="box", bf16_stages=1)
    preset = PRESETS["r3gan-cifar10"].experiment
    objective = replace(preset.objective, augment_p=constant(0.0), penalty_every=penalty_every)
    experiment = replace(preset, model=config, objective=objective)
    counted = count_step(experiment, Samples.of_preset(SampleShape(3, (8, 8)), 10, "").index, 4)
    by_hand = passes * network_flops(config, 8)
    assert counted.flops / counted.images == pytest.approx(by_hand, rel=0.002)


def test_the_count_of_perceptrons_is_exact() -> None:
    """Discriminator's turn: forward of both, backward of weights and of all inputs but the samples. Generator's turn:
    forward of both, backward through the discriminator, and of the generator without z."""
    z, hidden, pixels = 100, 128, 784
    generator = 2 * (z * hidden + hidden * hidden + hidden * pixels)
    discriminator = 2 * (pixels * hidden + hidden * hidden + hidden)
    first_turn = generator + 2 * (3 * discriminator - 2 * pixels * hidden)
    second_turn = 3 * generator - 2 * z * hidden + 2 * discriminator
    counted = count_step(PRESETS["article-gan"].experiment, samples_of("article-gan").index, 32)
    assert counted.flops == 32 * (first_turn + second_turn)


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_convolution_and_both_of_its_gradients_have_the_same_flops(groups: int, transposed: bool) -> None:
    x, convolve = torch.randn(2, 8, 6, 6, requires_grad=True), F.conv_transpose2d if transposed else F.conv2d
    weight = torch.randn(8, 8 // groups, 3, 3, requires_grad=True)
    with OperatorCounter() as counter, counter.counting():
        y = convolve(x, weight, groups=groups)
        y.sum().backward()
    positions = 36 if transposed else 16
    flops = sum(kernel.flops * times for kernel, times in counter.kernels.items())
    assert flops == 3 * 2 * 2 * positions * weight.numel()


@pytest.mark.parametrize("preset", ["digits", "dcgan", "digits-vae", "vae-gan", "beta-vae-dsprites"])
def test_memory_is_what_the_allocator_gives_within_a_fifth(preset: str) -> None:
    predicted = count_step(PRESETS[preset].experiment, samples_of(preset).index, 16).peak_bytes
    assert predicted == pytest.approx(measured_peak(preset, 16), rel=0.2)


def step_of(*kernels: Kernel, gradients: int = 10**9, state: int = 0, peak: int = 0) -> StepCount:
    """A pass of 64 images by these kernels."""
    counts = dict.fromkeys(kernels, 1)
    return StepCount(64, 2, counts, len(counts), 0, state, peak, (gradients,), {"generator": gradients})


def forecast_of(count: StepCount, gpu: str = "h100") -> Forecast:
    experiment = PRESETS["r3gan-cifar10"].experiment  # eight microbatches of 64
    return Forecast(experiment, Samples.of_preset(SampleShape(3, (32, 32)), 10, ""), GPU_TYPES[gpu], count, 64)


def test_a_kernel_takes_the_longer_one_of_two_times() -> None:
    gpu, flops, traffic = GPU_TYPES["h100"], 10**14, 10**12
    calculating = forecast_of(step_of(Kernel(flops, torch.bfloat16, 1))).at(1)
    assert calculating.images_per_s == pytest.approx(64 * gpu.bf16 * gpu.utilisation / flops)
    assert calculating.binds == "compute"
    single = forecast_of(step_of(Kernel(flops, torch.float32, 1)))  # R3GAN's presets have TF32 off
    assert single.at(1).compute_s == pytest.approx(calculating.compute_s * gpu.bf16 / gpu.fp32)
    rounded = replace(single.experiment, training=replace(single.experiment.training, tf32=True))
    assert replace(single, experiment=rounded).at(1).compute_s < single.at(1).compute_s / 5
    moving = forecast_of(step_of(Kernel(1, torch.bfloat16, traffic))).at(1)
    assert moving.images_per_s == pytest.approx(64 * gpu.bandwidth * BANDWIDTH_SHARE / traffic)
    assert moving.binds == "GPU memory bandwidth"
    launching = replace(step_of(), kernels={Kernel(0, torch.float32, 0): 10**5})
    assert forecast_of(launching).at(1).step_s == pytest.approx(8 * 10**5 * LAUNCH_S)
    assert forecast_of(launching).at(1).binds == "kernel launches"


def test_a_step_waits_for_what_the_backward_does_not_hide() -> None:
    count = step_of(Kernel(10**12, torch.bfloat16, 1))  # 3 ms a microbatch, of which 1.4 ms hide the all-reduce
    together = forecast_of(count).at(8, next(each for each in MACHINES if each.name == "p5.48xlarge"))
    assert 1 < together.reduce_s / (2 * 7 / 8 * 10**9 / GPU_TYPES["h100"].link) < 1.5
    apart = forecast_of(count, "a10g").at(8, next(each for each in MACHINES if each.name == "g5.xlarge"))
    assert apart.machines == 8
    assert apart.binds == "network"
    assert apart.reduce_s == pytest.approx(2 * 7 / 8 * 10**9 * 8 / 2.5e9, rel=0.01)
    assert apart.step_s == pytest.approx(apart.work_s / 2 + apart.reduce_s)
    assert forecast_of(count).at(1).reduce_s == 0


def test_the_largest_pass_fits_and_one_image_more_does_not() -> None:
    found = forecast_of(step_of(state=10**9, peak=10**9 + 64 * 10**8), "l4")
    largest = found.largest_pass()
    assert 0 <= found.usable_bytes - (found.peak_bytes() + (largest - 64) * 10**8) < 10**8
    assert found.fits() == (largest >= 64)


def test_passes_of_several_microbatches_do_the_same_work_with_fewer_launches() -> None:
    found = forecast_of(step_of(Kernel(10**12, torch.bfloat16, 1), peak=10**9))
    large = found.in_passes_of(256)
    assert large.at(1).gpu_s == pytest.approx(found.at(1).gpu_s)
    assert large.at(1).launch_s == found.at(1).launch_s / 4
    assert large.peak_bytes() - found.peak_bytes() == 3 * 10**9


def test_a_pass_is_as_large_as_memory_the_share_and_the_setting_allow() -> None:
    count = step_of(Kernel(10**12, torch.bfloat16, 1), gradients=10**6, state=10**9, peak=10**9 + 64 * 10**8)
    assert forecast_of(count, "h200").for_workers(1).pass_images == 512
    assert forecast_of(count, "h200").for_workers(8).pass_images == 64
    assert forecast_of(count, "l40s").for_workers(1).pass_images == 384  # 41.4 GB, 0.1 an image
    found = forecast_of(count, "h200")
    training = replace(found.experiment.training, pass_images=128)
    chosen = replace(found, experiment=replace(found.experiment, training=training))
    assert chosen.for_workers(1).pass_images == 128


def test_a_pass_of_another_size_is_predicted_by_proportion() -> None:
    experiment, index = PRESETS["dcgan"].experiment, samples_of("dcgan").index
    found = replace(forecast_of(count_step(experiment, index, 16)), pass_images=16)
    counted, scaled = count_step(experiment, index, 64), found.in_passes_of(64).count
    assert scaled.flops == counted.flops
    assert scaled.launches == pytest.approx(counted.launches, rel=0.1)  # each microbatch draws by itself
    assert scaled.peak_bytes == pytest.approx(counted.peak_bytes, rel=0.05)


def test_the_machines_are_those_of_the_cluster_file_at_the_prices_of_its_page() -> None:
    types = yaml.safe_load((ROOT / "cluster" / "aws.yaml").read_text())["available_node_types"]
    page = (ROOT / "cluster" / "README.md").read_text()
    rows = re.findall(r"^\| `[^|]*` \|? ?(?:\(off\) \| )?`([^|]*)` \|.* ([\d.]+) \|$", page, re.MULTILINE)
    listed = {name: float(price) for name, price in rows}
    known = {machine.name: machine for machine in MACHINES}
    for node in types.values():
        name = node["node_config"]["InstanceType"]
        if node["resources"]["GPU"]:
            assert known[name].gpus == node["resources"]["GPU"]
            assert known[name].price == listed[name]
            assert known[name].in_cluster == (node["max_workers"] > 0)
    started = {node["node_config"]["InstanceType"] for node in types.values()}
    assert {name for name, machine in known.items() if machine.in_cluster} <= started


def test_a_dry_run_predicts_without_data_storage_and_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["dcgan", "--dry-run", "--gpu-type", "L4", "--workers", "2:4", "--storage", str(tmp_path / "runs")]
    assert main_gan(words) == DONE
    said = capsys.readouterr()
    assert said.err == ""
    assert max(map(len, said.out.splitlines())) <= 80
    assert "2.484 GFLOP an image" in said.out
    assert "g6.xlarge" in said.out
    assert re.search(r"^4 +[\d,.]+ +[\d:]+ h +\$[\d.]+ +\$[\d.]+  \w+", said.out, re.MULTILINE)
    assert not (tmp_path / "runs").exists()


def test_of_data_that_are_named_the_index_alone_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = ShardInfo("not-there.tar", 30_000, 10, 0, "0" * 64)
    DatasetIndex("image", SampleShape(3, (32, 32)), (shard,)).save(Store(str(tmp_path)))
    words = ["--data", str(tmp_path), "--dry-run", "--gpu-type", "l4"]
    assert main_gan(["dcgan", *words]) == DONE
    assert "samples     32 × 32 × 3, 10 samples of 3 kB each in 1 shard\n" in capsys.readouterr().out


def test_a_pass_that_does_not_fit_is_said_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    large = ["--training.batch-size", "32768", "--training.microbatch-size", "32768"]
    assert main_gan(["dcgan", *large, "--dry-run", "--gpu-type", "l40s"]) == DONE
    said = capsys.readouterr().out
    assert "does not fit; set --training.microbatch-size to 16384, --training.recompute-from 1 with " in said
    assert "or take another GPU type" in said
    assert "a pass fits no machine that cluster/aws.yaml starts" in said
    assert no_cluster_machine(forecast_of(step_of(peak=10**9))) == ""


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--dry-run", "--gpu-type", "h300"], "--gpu-type h300: did you mean h200?"),
        (["--dry-run", "--gpu-type", "quantum"], "--gpu-type quantum: there are a100, "),
        (["--gpu-type", "h200"], "--gpu-type h200 predicts a training and starts none: add --dry-run"),
    ],
)
def test_a_gpu_type_that_is_none_is_one_line(words: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_vae(["digits-vae", *words]) == MISUSED
    said = capsys.readouterr().err
    assert answer in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("preset", ["mnist-400", "digits-vae"])
def test_the_page_has_what_the_benchmark_prints(preset: str) -> None:
    head, *_, row = preset_rows(counts_of([preset], None))
    page = (ROOT / "docs" / "PREDICTION.md").read_text()
    assert head in page
    [written] = re.findall(rf"^\| `{preset}` \| .*", page.partition(head)[2].partition("\n\n")[0], re.MULTILINE)
    now, before = ([cell.strip("%").replace(",", "") for cell in each.split(" | ")[1:-1]] for each in (row, written))
    assert [float(cell) for cell in now] == pytest.approx([float(cell) for cell in before], rel=0.05)


@pytest.mark.parametrize(("workers", "name"), [(1, "p5.4xlarge"), (2, "p5.4xlarge"), (8, "p5.48xlarge")])
def test_of_equally_cheap_machines_the_fewest_are_taken(workers: int, name: str) -> None:
    found = machine_for(gpu_type("h100"), workers)
    assert found is not None
    assert found.name == name
