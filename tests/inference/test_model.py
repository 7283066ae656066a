"""Models in use: samples by seed and index, latents and back, from runs, checkpoints and exported folders."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from imagegen_dist import load
from imagegen_dist.data.pack import pack
from imagegen_dist.inference.class_names import differing_classes
from imagegen_dist.inference.sampling_request import SamplingRequest
from imagegen_dist.records import RunSettings
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.storage import Store
from tests.checkpoints import FAMILIES, write_checkpoint
from tests.runs import tiny, train_here

every_family = pytest.mark.parametrize("family", FAMILIES)
VAES = [name for name in FAMILIES if "vae" in FAMILIES[name].preset]


@every_family
def test_a_sample_does_not_depend_on_how_many_are_asked_for_or_on_the_batch(family: str, tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, family))
    samples = model.sample(19, seed=3)
    assert samples.shape == (19, *FAMILIES[family].dims)
    assert samples.dtype == torch.uint8
    assert len(samples.flatten(1).unique(dim=0)) > 1
    for count in (1, 7, 8, 9):
        assert torch.equal(model.sample(count, seed=3), samples[:count])
    order = torch.randperm(19, generator=torch.Generator().manual_seed(0))
    label = model.labels(19, seed=3)
    mixed = model.generate(model.latents(19, 3)[order], None if label is None else label[order])
    assert torch.equal(mixed, samples[order])
    assert torch.equal(model.latents(4, 3, start=5), model.latents(9, 3)[5:])
    assert not torch.equal(model.sample(19, seed=4), samples)


def test_networks_see_batches_of_one_size(tmp_path: Path) -> None:
    """A matrix product of another number of rows may round in another way."""
    model = load(write_checkpoint(tmp_path, "r3gan"))
    sizes: list[int] = []

    def compute(drawn: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        sizes.append(len(drawn))
        return model(drawn, label)

    model.compute = compute
    assert len(model.sample(19, seed=3)) == 19
    assert sizes == [8, 8, 8]


@pytest.mark.parametrize("family", ["r3gan", "conv-vae", "fsq"])
def test_no_two_seeds_give_one_sample(family: str, tmp_path: Path) -> None:
    """PyTorch's generator on the CPU keeps 32 bits of its seed: these had one state."""
    model = load(write_checkpoint(tmp_path, family))
    seeds = [6464, 17585, 6464 + 2**32, 6464 + 2**63]
    noise = model.latents_of(seeds)
    assert len(noise.unique(dim=0)) == len(seeds)
    assert torch.equal(noise, torch.cat([model.latents(1, seed) for seed in seeds]))
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=r"0 to 2\^64 - 1"):
            model.sample(1, seed=seed)


@pytest.mark.parametrize("family", ["r3gan", "conv-vae"])
def test_another_batch_gives_the_same_noise_and_samples_within_rounding(family: str, tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, family))
    before = model.sample(10).int()
    model.batch = 3
    assert (model.sample(10).int() - before).abs().max() <= 1


@pytest.mark.parametrize("family", VAES)
def test_latents_and_back(family: str, tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, family))
    samples, label = model.sample(5), model.labels(5)
    z = model.encode(samples, label)
    assert torch.equal(model.encode(samples[3:], None if label is None else label[3:]), z[3:])
    rebuilt = model.decode(z, label)
    assert rebuilt.shape == samples.shape
    assert rebuilt.dtype == torch.uint8
    assert torch.equal(model.reconstruct(samples, label), rebuilt)


WRONG_SAMPLES = {
    "float": (lambda x: x.float() / 255, "samples are torch.float32: integers from 0 to 255 in torch.uint8"),
    "scaled": (lambda x: x.double() / 127.5 - 1, r"for values in \[0, 1\] give \(x \* 255\).round\(\)"),
    "int64": (lambda x: x.long(), "samples are torch.int64"),
    "numpy": (lambda x: x.numpy(), "samples are a ndarray: give a torch.Tensor"),
    "one": (lambda x: x[0], "a batch of one is x"),
    "flat": (lambda x: x.flatten(1), r"samples have the shape \[2, 144\]: \[B, 1, 12, 12\] is needed"),
    "channels last": (lambda x: x.movedim(1, -1), "samples have the shape"),
    "none": (lambda x: x[:0], "samples have the shape"),
}


@pytest.mark.parametrize("wrong", WRONG_SAMPLES)
def test_samples_of_another_type_or_shape_are_refused_in_a_line(wrong: str, tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "mlp-vae"))
    change, said = WRONG_SAMPLES[wrong]
    for function in (model.encode, model.reconstruct):
        with pytest.raises(ValueError, match=said):
            function(change(model.sample(2)))


@pytest.mark.parametrize("family", ["mlp", "conv-vae", "fsq", "ladder"])
def test_latents_and_labels_that_do_not_fit_are_refused_in_a_line(family: str, tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, family))
    z, label = model.latents(3), model.labels(3)
    wrong = [
        (z.long(), "latents are torch.int64"),
        (z[:, :-1], "latents have the shape"),
        (z * torch.nan, "not finite"),
    ]
    wrong += [(z + 3, "codes in")] if family == "fsq" else []
    for given, said in wrong:
        if family == "ladder" and "shape" in said:
            given = z[:, :-2]  # of the lower level; without all of it the priors' means are taken
        for function in (model.decode, model.generate):
            with pytest.raises(ValueError, match=said):
                function(given, label)
    labels = [torch.zeros(2, dtype=torch.int64), torch.zeros(3), torch.full((3,), 99), torch.full((3,), -1)]
    for given in labels if label is not None else [torch.zeros(3, dtype=torch.int64)]:
        with pytest.raises(ValueError, match=r"labels are|class 99|class -1|is unconditional"):
            model.decode(z, given)
    if label is not None:
        with pytest.raises(ValueError, match="conditioned on one of 4 classes: give labels"):
            model.generate(z)


def test_a_gan_has_no_encoder(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "mlp"))
    assert torch.equal(model.decode(model.latents(3)), model.sample(3))
    with pytest.raises(ValueError, match="no encoder"):
        model.encode(model.sample(1))


def test_truncation_scales_the_noise(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "r3gan"))
    none, half, mean = (model.sample(6, classes=2, truncation=psi) for psi in (1.0, 0.5, 0.0))
    assert torch.equal(half, model.generate(model.latents(6) * 0.5, model.labels(6, 2)))
    assert len(mean.flatten(1).unique(dim=0)) == 1
    spread = [x.float().std(0).mean() for x in (none, half, mean)]
    assert spread[0] > spread[1] > spread[2] == 0
    for psi in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
            model.sample(1, truncation=psi)


def test_a_ladders_truncation_narrows_every_level_about_its_priors_mean(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "ladder"))
    mean = model.decode(torch.zeros(1, 3))  # the lower level follows from the highest one's mean, without noise
    assert torch.equal(model.sample(2, truncation=0.0), mean.expand(2, *mean.shape[1:]))


def test_codes_have_no_mean_to_be_scaled_to(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "fsq"))
    with pytest.raises(ValueError, match="codes"):
        model.sample(1, truncation=0.5)


def test_a_blend_of_one_class_is_that_class_and_of_two_lies_between(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "r3gan"))
    plain = model.sample(4, classes=3).int()
    assert (model.sample(4, classes={3: 1.0}).int() - plain).abs().max() <= 1
    embed = model.generator.embed
    blended = embed(model.labels(1, {3: 0.25, 1: 0.75}))
    torch.testing.assert_close(blended[0], 0.25 * embed.weight[3] + 0.75 * embed.weight[1])
    mixed = model.sample(2, classes=[{3: 0.5, 1: 0.5}, 3], seed=1)
    assert not torch.equal(mixed[0], model.sample(1, classes=3, seed=1)[0])
    with pytest.raises(ValueError, match="class 5: the model's classes are 0 to 4"):
        model.sample(1, classes={5: 1.0})


def test_classes_are_asked_for_by_name_and_by_integers_of_any_type(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "r3gan"))
    assert model.class_names == ("ant", "bee", "cat", "dog", "eel, electric")
    for asked in ("cat", ["cat"], 2, np.int64(2), np.array(2), torch.tensor(2), np.array([2]), torch.tensor([2])):
        assert model.labels(2, asked).tolist() == [2, 2]
    assert model.labels(3, np.arange(1, 4, dtype=np.uint8)).tolist() == [1, 2, 3]
    assert torch.equal(model.sample(np.int64(2), classes="dog", seed=np.int64(5)), model.sample(2, classes=3, seed=5))
    assert torch.equal(model.labels(1, {"cat": 0.5, "dog": 0.5}), model.labels(1, {2: 0.5, 3: 0.5}))
    for asked, said in (
        ("cats", "class cats: no class has that name; is it one of cat,"),
        ("5", "class 5: no class has that name; the model has 5: ant, bee, cat, ..."),
        (True, "class True: a number or a name is needed"),
        (1.0, "class 1.0: a number or a name is needed"),
        (np.int64(-1), "class -1: the model's classes are 0 to 4"),
        ({"cat": 0.5, 2: 0.5}, "a class occurs twice"),
        ([], "the model's classes are 0 to 4"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            model.labels(1, asked)
    unnamed = load(write_checkpoint(tmp_path / "older", "conv-vae"))
    assert unnamed.class_names is None
    with pytest.raises(ValueError, match="class cat: this model's classes have no names, only numbers"):
        unnamed.sample(1, classes="cat")


def test_the_names_of_classes_come_from_the_data_by_the_checkpoint(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 1, 28, 28), np.uint8)
    pack(((picture, ("dog 10", "dog 9")[number % 2]) for number, picture in enumerate(noise)), Store(tmp_path / "data"))
    place = {"storage": Store(tmp_path).url, "data": Store(tmp_path / "data").url}
    where = RunSettings("run", preset="digits", job="train_gan", wandb_mode="disabled", **place)
    train_here(tiny(training__total_images=24), where)
    model = load(where.folder.url)
    assert model.class_names == ("dog 9", "dog 10")
    assert torch.equal(model.sample(1, classes="dog 10"), model.sample(1, classes=1))


def test_data_that_number_other_classes_than_the_model_are_told() -> None:
    assert differing_classes(("cat", "dog"), ("cat", "dog")) == differing_classes(None, ("cat",)) == ""
    said = "class 0 is 'dog' in the data, and 'cat' in the model"
    assert differing_classes(("cat", "dog"), ("dog", "cat")) == said
    assert differing_classes(("a",), ("a", "b")) == "the model has 1 class, and the data have 2"


def test_asked_samples_are_those_of_their_seeds(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "r3gan"))
    asked = SamplingRequest((7, 2, 40), (4, 0))
    samples = asked.sample(model, range(len(asked)))
    for row, (seed, label) in enumerate([(7, 4), (7, 0), (2, 4), (2, 0), (40, 4), (40, 0)]):
        assert torch.equal(samples[row], model.sample(1, classes=label, seed=seed)[0])
        assert asked.class_of(model, row) == label
    in_turn = SamplingRequest((7, 2, 40))
    assert [in_turn.class_of(model, row) for row in range(3)] == [2, 2, 0]
    assert torch.equal(in_turn.sample(model, [2]), model.sample(1, classes=0, seed=40))


def test_the_networks_move_with_the_model(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "res-vae")).to(torch.float64).to(torch.float32).to("cpu")
    assert model.device == torch.device("cpu")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    assert any(name.startswith("networks.likelihood") for name, _ in model.named_parameters())


@pytest.mark.parametrize("family", ["r3gan", "vae-gan"])
def test_the_discriminator_comes_along_when_it_is_asked_for(family: str, tmp_path: Path) -> None:
    url = write_checkpoint(tmp_path, family)
    assert "discriminator" not in load(url).networks
    model = load(url, discriminator=True)
    label = (model.labels(2),) if family == "r3gan" else ()
    assert model.networks["discriminator"](torch.zeros(2, *model.shape.dims), *label).isfinite().all()


def test_only_what_inference_reads_has_to_be_whole(tmp_path: Path) -> None:
    url = write_checkpoint(tmp_path, "mlp")
    store = Store(url) / "checkpoints" / "step-000000000480" / "0"
    expected = load(url).sample(2)
    store.remove("state.safetensors")
    assert torch.equal(load(store.url).sample(2), expected)
    with pytest.raises(CheckpointError, match=r"state\.safetensors is missing"):
        load(url, discriminator=True)
    store.write("model.safetensors", store.read("model.safetensors")[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors has .* bytes, not"):
        load(url)


def test_conditions_are_given_by_part_and_the_others_are_those_of_the_data(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "r3gan-styled"))
    assert model.conditions is not None
    places = model.conditions.slices
    label = model.labels(40, conditions={"digit": 3, "age": 1.5})
    assert label is not None
    assert label[:, places["digit"]].argmax(1).unique().tolist() == [3]
    assert len(label[:, places["age"]].unique()) == 1
    # In the data, a digit of 3 is always "sans": the parts occur together.
    assert label[:, places["style"]].argmax(1).unique().tolist() == [0]
    assert set(label[:, places["bold"]].flatten().tolist()) == {0, 1}
    free = model.labels(4000)
    assert free is not None
    assert free[:, places["digit"]].mean(0).tolist() == pytest.approx([0.25] * 4, abs=0.01)
    assert float(free[:, places["age"]].mean()) == pytest.approx(0, abs=0.02)
    turns = model.labels(4, conditions=[{"digit": 0}, {"digit": {"1": 0.5, "2": 0.5}}])
    assert turns is not None
    assert turns[:, places["digit"]].tolist() == [[1, 0, 0, 0], [0, 0.5, 0.5, 0]] * 2
    samples = model.sample(6, seed=5, conditions={"style": "serif"})
    assert torch.equal(model.sample(2, seed=5, conditions={"style": "serif"}), samples[:2])
    assert not torch.equal(model.sample(6, seed=5, conditions={"style": "sans"}), samples)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"colour": 1}, "no condition 'colour': the data have digit"),
        ({"digit": 4}, "digit has no class '4': there are 0, 1, 2"),
        ({"age": 6.5}, "age is 6.5; in the data it is 0 to 5.9"),
        ({"age": "old"}, "1 number needed"),
        ({"bold": 2}, "true, false or a number from 0 to 1"),
        ([], "that is not empty"),
        ([3], "values by part"),
    ],
)
def test_conditions_that_the_model_does_not_have_are_refused(given: object, words: str, tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, "r3gan-styled"))
    with pytest.raises(ValueError, match=words):
        model.sample(1, conditions=given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 parts that are classes"):
        model.sample(1, classes=3)
    with pytest.raises(ValueError, match="is not told conditions"):
        load(write_checkpoint(tmp_path / "plain", "r3gan")).sample(1, conditions={"digit": 1})
    with pytest.raises(ValueError, match=r"conditions float32 \[2, 8\] are needed"):
        model.generate(model.latents(2), torch.tensor([1, 2]))
