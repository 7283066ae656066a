"""The command line: what it resolves to, and the one line that answers a mistake before any worker starts."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from imagegen_dist import commands, config, records
from imagegen_dist.cli.prepare import prepare
from imagegen_dist.cli.train import main_gan, main_vae
from imagegen_dist.cli.train_options import describe, help_text, parse
from imagegen_dist.data.pack import pack
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.experiment import with_absolute_paths
from imagegen_dist.presets import PRESETS, find_preset
from imagegen_dist.resources import Workers
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.storage import Store


def parsed(*arguments: str) -> object:
    return parse("train_gan", arguments)


def besides_packing(text: str) -> list[str]:
    """Lines other than those that a slow machine shows while it packs the digits."""
    return [line for line in text.splitlines() if not line.startswith("packing digits, once: ")]


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command answers, checked to be one line on standard error and exit code 2."""
    assert main_gan(arguments) == MISUSED == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = besides_packing(captured.err)
    assert line.startswith("train_gan.py: ")
    return line


@pytest.fixture
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage folder shared by the module's tests, so that the digits are packed once."""
    return str(tmp_path_factory.getbasetemp() / "storage")


def test_nothing_at_all_is_the_digits_preset() -> None:
    assert parsed().experiment == find_preset("digits").experiment
    assert parsed().workers is None


def test_flags_and_dotted_overrides() -> None:
    command = parsed(
        *("r3gan-cifar10", "--data", "s3://bucket/train", "--workers", "2:8", "--objective.gamma", "0.1"),
        *("--optim.generator.lr=1e-3:1e-4:5000", "--model.widths", "64,32", "--training.batch-size", "256"),
    )
    assert command.experiment.data.url == "s3://bucket/train"
    assert command.experiment.objective.gamma == constant(0.1)
    assert command.experiment.optim.generator.lr == Schedule(1e-3, 1e-4, 5000)
    assert command.experiment.model.widths == (64, 32)
    assert command.experiment.training.batch_size == 256
    assert command.workers == Workers(2, 8)


def test_two_overrides_that_only_fit_together_may_come_in_any_order() -> None:
    command = parsed("--training.microbatch-size", "48", "--training.batch-size", "96")
    assert command.experiment.training.batching.microbatches == 2


def test_a_config_file_holds_an_experiment_or_paths(tmp_path: Path) -> None:
    whole, some = tmp_path / "whole.json", tmp_path / "some.json"
    whole.write_text(json.dumps({"experiment": config.encode(find_preset("article-gan").experiment)}))
    named = tmp_path / "named.json"
    named.write_text(json.dumps({"preset": "article-gan", **json.loads(whole.read_text())}))
    assert parsed("--config", str(named)).options.preset == "article-gan"
    some.write_text(json.dumps({"objective.gamma": 0.5, "training": {"batch_size": 128}}))
    assert parsed("--config", str(whole)).experiment == find_preset("article-gan").experiment
    experiment = parsed("--config", str(some)).experiment
    assert experiment.objective.gamma == constant(0.5)
    assert experiment.training.batch_size == 128


def test_every_setting_shown_can_be_typed_back() -> None:
    for preset in PRESETS:
        shown = re.findall(r"^  (--\S+) (.+?)(?: {2,}.*)?$", describe(find_preset(preset).experiment), re.MULTILINE)
        assert len(shown) >= len(config.paths(find_preset(preset).experiment))
        words = [word.strip("'") for pair in shown for word in pair]
        command = parse(find_preset(preset).job, [preset, *words])
        assert command.experiment == find_preset(preset).experiment


@pytest.mark.parametrize("job", ["train_gan", "train_vae"])
def test_help_is_short_and_lists_the_presets(job: str) -> None:
    text = help_text(job, ["--help"])
    assert len(text.splitlines()) < 80  # of at most 80 columns
    assert all((f"  {name} " in text) == (preset.job == job) for name, preset in PRESETS.items())
    assert "--dry-run" in text


@pytest.mark.parametrize(("main", "job", "other"), [(main_gan, "gan", "vae"), (main_vae, "vae", "gan")])
def test_a_preset_of_another_job_is_answered_with_that_job(
    main: Callable[[list[str]], int], job: str, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = next(name for name, each in PRESETS.items() if each.job == f"train_{other}")
    assert main([preset]) == MISUSED
    assert capsys.readouterr().err.startswith(f"train_{job}.py: {preset} is trained by train_{other}.py")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--objective.beta", "-1"], "beta -1 is negative; set --objective.beta to 0 or more"),
        (["--objective.likelihood", "poisson"], "'poisson' is not known"),
        (["--objective.likelihood", "l1", "--objective.binarize", "threshold"], "needs the bernoulli likelihood"),
        (["--objective.latent", "fsq"], "set --objective.levels to one for each"),
        (["--objective.capacity", "5", "--objective.beta", "2"], "--objective.beta would have no effect"),
        (["--model", "r3gan"], "vae cannot be trained with a r3gan; set --model to one of convvae, mlpvae, resvae"),
        (["--objective", "factorvae"], "factorvae needs --optim factorvaeoptim"),
        (["beta-tcvae-dsprites", "--training.microbatch-size", "1"], "compares the samples of a microbatch"),
        (["--beta", "4"], "did you mean --objective.beta?"),
        (["--evaluation.importance-samples", "-1"], "importance_samples -1"),
        (["beta-vae-dsprites", "--model.kernels", "3"], "kernels"),
        (["vae-gan", "--objective.beta", "-1"], "beta -1 is negative; set --objective.beta to 0 or more"),
        (["vae-gan", "--objective.likelihood", "bernoulli"], "'bernoulli' is not known; there are l1, mse"),
        (["vae-gan", "--objective.perceptual", "vgg"], "'vgg' is not known"),
        (
            ["vae-gan", "--objective.perceptual", "lpips"],
            "perceptual lpips needs weights: set --objective.lpips-weights",
        ),
        (["vae-gan", "--objective.lpips-weights", "a.safetensors"], "has no effect with perceptual random"),
        (["vae-gan", "--objective.discriminator-layers", "0"], "set --objective.discriminator-layers to 1 or more"),
        (["--objective", "vaegan"], "vaegan needs --optim vaeganoptim"),
        (["--evaluation.factors", "scale,x"], "there is no factor 'scale': the samples of"),
        (["--evaluation.factors", "scale"], "disentanglement is of two different ones or more"),
    ],
)
def test_a_mistake_in_a_vae_is_answered_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], storage: str
) -> None:
    assert main_vae(["--storage", storage, "--data", "digits", *arguments]) == MISUSED
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = besides_packing(captured.err)
    assert line.startswith("train_vae.py: ")
    assert said in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--totl-images", "48"], "--totl-images: no such flag; did you mean --training.total-images?"),
        (["--training.totl-images", "48"], "no such setting in training; did you mean --training.total-images?"),
        (["--data", "digit"], "there is neither a folder nor a built-in dataset 'digit'; did you mean digits?"),
        (["--training.seed", "abc"], "training.seed: 'abc'"),
        (["--config", "/nowhere.json"], "--config /nowhere.json: no such file or directory"),
        (["--model.widths", "a", "b"], "model.widths: 'a' is not a number"),
    ],
)
def test_a_misspelt_word_is_answered_in_one_line_without_doubled_titles_or_error_numbers(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], storage: str
) -> None:
    error = mistake(capsys, "digits", "--storage", storage, *arguments)
    assert said in error
    assert "Unrecognized" not in error
    assert "Errno" not in error


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        ([], "--data.validation is not set: `imagegen data pack SOURCE OUT --split train:0.9,val:0.1` makes both"),
        (["train"], "--data.validation names the training samples: set it to others"),
    ],
)
def test_augmentation_that_follows_held_out_samples_needs_some(
    held_out: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pack(((np.full((1, 28, 28), number, np.uint8), number % 2) for number in range(20)), Store(tmp_path / "train"))
    words = ["--storage", str(tmp_path / "runs"), "--data", str(tmp_path / "train")]
    for name in held_out:
        words += ["--data.validation", str(tmp_path / name)]
    assert said in mistake(capsys, "digits", *words, "--objective.adaptive-augment", "0.3")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--objective.adaptive-augment", "1.5"], "set --objective.adaptive-augment between 0 and 1, or 0"),
        (["--objective.augment.policy", "colour"], "set --objective.augment.policy to some of color, brightness"),
        (["--objective.augment.flip-depth", "1"], "--objective.augment.flip-depth is for volumes and videos"),
    ],
)
def test_a_mistake_in_augmentation_is_answered_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], storage: str
) -> None:
    assert said in mistake(capsys, "digits", "--storage", storage, *arguments)


@pytest.mark.parametrize("words", [["--model.widths", "96", "48"], ["--model.widths", "96,48"]])
def test_a_list_is_written_with_spaces_or_commas(words: list[str]) -> None:
    assert parsed("digits", *words).experiment.model.widths == (96, 48)


def test_a_file_of_lpips_weights_that_is_another_or_lacks_a_tensor_is_answered_in_one_line(
    capsys: pytest.CaptureFixture[str], storage: str, tmp_path: Path
) -> None:
    file = tmp_path / "lpips.safetensors"
    save_file({"convolutions.0.weight": torch.zeros(64, 3, 3, 3)}, file)
    right = hashlib.sha256(file.read_bytes()).hexdigest()
    words = ["vae-gan", "--storage", storage, "--objective.perceptual", "lpips", "--objective.lpips-weights", str(file)]
    for sha256, said in {"0" * 64: f"has the SHA-256 {right}", right: "lacks the tensor convolutions.0.bias"}.items():
        assert main_vae([*words, "--objective.lpips-sha256", sha256]) == MISUSED
        captured = capsys.readouterr().err
        assert captured.count("\n") == 1
        assert said in captured


def test_a_relative_path_of_lpips_weights_is_made_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    changes = [("objective.perceptual", "lpips"), ("objective.lpips_weights", "some/lpips.safetensors")]
    whole = with_absolute_paths(config.overrides(find_preset("vae-gan").experiment, changes))
    assert whole.objective.lpips_weights == str(tmp_path / "some" / "lpips.safetensors")
    assert with_absolute_paths(whole) == whole


def test_objective_and_optimizer_may_be_changed_together(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--objective", "factorvae", "--optim", "factorvaeoptim", "--objective.gamma", "20", "--dry-run"]
    assert main_vae(["--storage", storage, *words]) == DONE
    shown = capsys.readouterr().out
    assert "tc_discriminator" in shown
    assert "--objective.gamma 20" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digit"], "did you mean digits?"),
        (["--dta", "x"], "did you mean --data?"),
        (["--gamma", "1"], "did you mean --objective.gamma?"),
        (["--objective.gama", "1"], "did you mean --objective.gamma?"),
        (["--training.lr", "1"], "did you mean"),
        (["--objective.gamma", "much"], "objective.gamma"),
        (["--objective.gamma", "-1"], "gamma -1 is negative"),
        (["--objective.loss", "hing"], "did you mean hinge?"),
        (["--training.batch-size", "100"], "not a multiple of microbatches"),
        (["--training.total-images", "many"], "is not a number"),
        (["--objective.gamma"], "needs a value"),
        (["--data"], "--data"),
        (["--workers", "0"], "--workers 0"),
        (["--workers", "8:2"], "--workers 8:2"),
        (["--workers", "3"], "3 workers cannot share a batch of 2 microbatches"),
        (["--config", "/no/such/file.json"], "--config /no/such/file.json"),
        (["--wandb", "sometimes"], "sometimes"),
        (["digits", "extra"], "extra"),
    ],
)
def test_a_mistake_in_the_words_is_answered_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], storage: str
) -> None:
    assert said in mistake(capsys, "--storage", storage, *arguments)


def test_data_that_do_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = mistake(capsys, "--data", str(tmp_path / "nowhere"), "--storage", str(tmp_path / "runs"))
    assert str(tmp_path / "nowhere") in said


def test_a_folder_without_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in mistake(capsys, "--data", str(tmp_path / "empty"), "--storage", str(tmp_path / "runs"))


def test_a_corrupt_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.json").write_text("{not json")
    assert "is corrupt" in mistake(capsys, "--data", str(tmp_path), "--storage", str(tmp_path / "runs"))


def test_storage_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in mistake(capsys, "--storage", str(tmp_path / "file" / "runs"))
    pack(((grey, None) for grey in np.zeros((12, 1, 28, 28), np.uint8)), Store(tmp_path / "data"))
    data = ("--data", str(tmp_path / "data"), "--data.conditional", "false")
    assert "file" in mistake(capsys, *data, "--storage", str(tmp_path / "file" / "runs"))


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "a b", "-x", "x" * 300, "é" * 65])
def test_run_names_that_are_no_folder_names(name: str, storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--run" in mistake(capsys, f"--run={name}", "--storage", storage)


def test_a_model_that_does_not_fit_the_data(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not divisible by" in mistake(capsys, "r3gan-cifar10", "--data", "digits", "--storage", storage)


def test_a_run_of_another_configuration(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = prepare(parsed("--storage", storage, "--run", "mine"))
    records.write_config(prepared.settings, prepared.experiment, prepared.index, {})
    said = mistake(capsys, "--storage", storage, "--run", "mine", "--optim.generator.lr", "1e-5")
    assert "optim.generator.lr: 1e-05, not" in said
    assert "--run" in said


@pytest.mark.parametrize("wheel", [False, True], ids=["checkout", "wheel"])
def test_the_printed_command_continues_a_run_in_any_shell(
    wheel: bool, storage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After overrides, --data and in a storage whose name the shell would split and expand."""
    place, mine = tmp_path / "my 'runs' $HOME", tmp_path / "my data"
    prepare(parsed("--storage", storage, "--run", "packs"))
    shutil.copytree(Path(storage) / ".data" / "digits-v1" / "train", mine)
    if wheel:
        monkeypatch.setattr(commands, "_CHECKOUT", tmp_path)
    given = ["digits", "--storage", str(place), "--run", "mine", "--data", str(mine), "--workers", "1:2"]
    prepared = prepare(parsed(*given, "--objective.gamma", "0.5", "--wandb", "disabled"))
    records.write_config(prepared.settings, prepared.experiment, prepared.index, {})
    line = records.resume_command(prepared.settings)
    assert line.startswith("imagegen train " if wheel else "python ")
    said = subprocess.run(["sh", "-c", f'printf "%s\\n" {line}'], capture_output=True, text=True, check=True).stdout
    program, words = said.splitlines()[:2], said.splitlines()[2:]
    assert wheel or Path(program[1]).name == "train_gan.py"
    again = prepare(parsed(*words))
    assert (again.experiment, again.settings) == (prepared.experiment, prepared.settings)
    assert again.command.workers == Workers(1, 2)
    longer = dict(records.commands(prepared.settings))["train longer"].replace("IMAGES", "123456")
    words = shlex.split(longer)[2:]
    assert main_gan([*words, "--dry-run"]) == DONE
    assert "--training.total-images 123456" in capsys.readouterr().out
    assert main_vae([*words, "--dry-run"]) == MISUSED
    assert "is trained by" in capsys.readouterr().err


def test_overrides_go_on_top_of_a_runs_own_settings(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = prepare(parsed("--storage", storage, "--run", "own", "--objective.gamma", "0.5"))
    records.write_config(prepared.settings, prepared.experiment, prepared.index, {})
    command = parsed("--storage", storage, "--run", "own", "--training.total-images", "7000")
    assert command.experiment == config.override(prepared.experiment, "training.total_images", 7000)
    assert parsed("--storage", storage, "--run", "other").experiment == find_preset("digits").experiment
    said = mistake(capsys, "digits", "--storage", storage, "--run", "own")
    assert "objective.gamma" in said
    assert "to continue with the run's own" in said


def test_a_config_json_that_cannot_be_read(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(storage) / "torn").mkdir(parents=True, exist_ok=True)
    (Path(storage) / "torn" / "config.json").write_text('{"experiment":')
    assert "cannot be read" in mistake(capsys, "--storage", storage, "--run", "torn")


def test_a_dry_run_shows_everything_and_trains_nothing(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_gan(["--storage", storage, "--run", "dry", "--dry-run"]) == DONE
    shown = capsys.readouterr().out
    for word in ("--objective.gamma", "generator", "parameters", "4,000 samples in 8 shards", "written and read back"):
        assert word in shown
    assert max(map(len, shown.split("networks    ")[0].splitlines())) <= 80
    assert "--training.batch-size 64                Images of a step, over all workers\n" in shown
    assert re.search(r"time        about [\d:]+.* at [\d.,]+ images/s, measured on this machine\n", shown)
    assert not (Path(storage) / "dry").exists()


def test_help_of_a_group_explains_every_setting_of_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_gan(["digits", "--objective.loss", "hinge", "--help", "objective"]) == DONE
    shown = capsys.readouterr().out
    assert "--objective.loss hinge\n      The adversarial loss.\n      relativistic | non-saturating | hinge" in shown
    experiment = find_preset("digits").experiment
    settings = [path.replace("_", "-") for path in config.paths(experiment)]
    shown_paths = {line.split()[0].removeprefix("--") for line in shown.splitlines() if line.startswith("  --")}
    assert shown_paths - {"objective"} == {path for path in settings if path.startswith("objective.")}
    assert main_vae(["digits-vae", "--help", "objective.beta", "optim"]) == DONE
    assert "Weight of the rate" in capsys.readouterr().out
    assert "did you mean objective?" in mistake(capsys, "digits", "--help", "objectve")
