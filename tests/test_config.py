import json
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from imagegen_dist.config import (
    ConfigError,
    decode,
    differences,
    encode,
    fingerprint,
    flatten,
    kind,
    nearest,
    override,
    overrides,
    paths,
)
from imagegen_dist.experiment import Experiment
from imagegen_dist.models.mlp import MLPConfig
from imagegen_dist.models.r3gan import R3GANConfig
from imagegen_dist.presets import PRESETS
from imagegen_dist.records import RunSettings
from imagegen_dist.schedule import Schedule, constant

DIGITS = PRESETS["digits"].experiment


@dataclass(frozen=True)
class CircleConfig:
    radius: float = 1.0


@dataclass(frozen=True)
class SquareConfig:
    side: float = 1.0
    corners: tuple[int, int] = (1, 2)


@dataclass(frozen=True)
class Drawing:
    shape: CircleConfig | SquareConfig = field(default_factory=CircleConfig)
    colour: Literal["red", "green"] = "red"
    name: str = ""
    filled: bool = False
    width: int = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.filled and self.width != 2:
            raise ValueError(f"width {self.width}: a filled drawing has width 2")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name):
    experiment = PRESETS[name].experiment
    data = encode(experiment)
    decoded = decode(Experiment, json.loads(json.dumps(data)))
    assert decoded == experiment
    assert fingerprint(encode(decoded)) == fingerprint(data)


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_of_a_preset_can_be_written_as_shown(name):
    experiment = PRESETS[name].experiment
    for path, value in paths(experiment).items():
        text = json.dumps(encode(value)) if isinstance(value, bool | tuple) else str(value)
        assert override(experiment, path, text) == experiment, path


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("objective.gamma", "0.1", constant(0.1)),
        ("objective.gamma", 2, constant(2.0)),
        ("objective.gamma", "1:0.1:2000", Schedule(1.0, 0.1, 2000)),
        ("objective.gamma", {"start": 1, "end": 0.5, "images": 10}, Schedule(1.0, 0.5, 10)),
        ("objective.loss", "hinge", "hinge"),
        ("objective.critic-steps", "5", 5),
        ("training.total_images", "400000", 400_000),
        ("training.total-images", "4e5", 400_000),
        ("training.bf16", "true", True),
        ("training.bf16", "off", False),
        ("optim.generator.beta1", "0", 0.0),
        ("model.widths", "96,48", (96, 48)),
        ("model.widths", "96, 48", (96, 48)),
        ("model.widths", "[96, 48]", (96, 48)),
        ("model.widths", "96", (96,)),
        ("model.widths", [96, 48], (96, 48)),
        ("data.url", "s3://bucket/7", "s3://bucket/7"),
        ("data.url", "7", "7"),
    ],
)
def test_a_value_is_read_as_its_settings_type(path, value, expected):
    found = paths(override(DIGITS, path, value))[path.replace("-", "_")]
    assert found == expected
    assert type(found) is type(expected)


def test_a_field_of_a_schedule_is_set_by_itself():
    experiment = override(DIGITS, "objective.gamma", "1:0.1:2000")
    assert override(experiment, "objective.gamma.end", "0.5").objective.gamma == Schedule(1.0, 0.5, 2000)
    assert override(experiment, "objective.gamma.images", "7").objective.gamma == Schedule(1.0, 0.1, 7)


def test_a_constant_becomes_a_schedule_field_by_field():
    experiment = override(DIGITS, "objective.gamma", "1")
    grown = overrides(experiment, [("objective.gamma.end", "0.5"), ("objective.gamma.images", "100")])
    assert grown.objective.gamma == Schedule(1.0, 0.5, 100)
    assert overrides(experiment, [("objective.gamma.images", "100")]).objective.gamma == Schedule(1.0, 1.0, 100)


def test_the_configuration_given_stays_as_it_is():
    before = fingerprint(encode(DIGITS))
    override(DIGITS, "training.batch_size", 128)
    assert fingerprint(encode(DIGITS)) == before


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_values_that_fit_together_come_in_any_order(order):
    assignments = [("filled", "yes"), ("width", "2")]
    assert overrides(Drawing(), [assignments[at] for at in order]) == Drawing(filled=True, width=2)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("objective.gama", "did you mean --objective.gamma?"),
        ("objectiv.gamma", "did you mean --objective.gamma?"),
        ("training.lr", "did you mean --optim."),
        ("training.batchsize", "did you mean --training.batch-size?"),
        ("batch-size", "did you mean --training.batch-size?"),
        ("objective.gamma.ends", "--objective.gamma.ends: no such setting in objective.gamma"),
        ("zzz.qqq", "see --help"),
    ],
)
def test_an_unknown_path_is_answered_with_what_was_meant(path, hint):
    with pytest.raises(ConfigError) as caught:
        override(DIGITS, path, "1")
    assert str(caught.value).startswith(f"--{path}: no such setting")
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("objective.gamma", "abc", ["abc", "NUMBER or START:END:IMAGES"]),
        ("objective.gamma", "1:2", ["1:2", "NUMBER or START:END:IMAGES"]),
        ("objective.gamma", "-1", ["gamma -1", "0 or more"]),
        ("objective.gamma", {"end": 1}, ["start, end and images"]),
        ("objective.loss", "hing", ["'hing'", "did you mean hinge?"]),
        ("objective.epsilon", "nan", ["nan", "not finite"]),
        ("training.total_images", "many", ["'many'", "not a number"]),
        ("training.total_images", "1.5", ["1.5", "a whole number"]),
        ("training.total_images", "true", ["True", "a whole number"]),
        ("training.total_images", "inf", ["inf", "not finite"]),
        ("training.bf16", "1", ["1", "true or false"]),
        ("training.bf16", "maybe", ["'maybe'", "true or false"]),
        ("training.batch_size", "63", ["63", "microbatches of 32"]),
        ("model.widths", "96,x", ["'x'", "not a number"]),
        ("model.widths", "", ["widths ()"]),
        ("model", "r4gan", ["'r4gan'", "did you mean r3gan?"]),
        ("model", '{"kind": "mlp", "widths": [3]}', ["model.widths", "no such setting", "hidden"]),
        ("objective", "5", ["objective", "5", "not known"]),
        ("training", "5", ["training", "5", "not a group of settings"]),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_one_line(path, value, words):
    with pytest.raises(ConfigError) as caught:
        override(DIGITS, path, value)
    message = str(caught.value)
    assert "\n" not in message
    assert path in message or path.rsplit(".", 1)[-1].replace("_", "-") in message or "batch" in message
    for word in words:
        assert word in message


def test_a_tuple_of_fixed_length_takes_no_other():
    with pytest.raises(ConfigError, match=r"shape.corners: \['1', '2', '3'\] needs 2 values"):
        override(Drawing(shape=SquareConfig()), "shape.corners", "1,2,3")


def test_none_is_a_value_where_the_setting_allows_it():
    assert override(Drawing(limit=3), "limit", "none").limit is None
    assert override(Drawing(), "limit", "4").limit == 4
    with pytest.raises(ConfigError, match="width"):
        override(Drawing(), "width", "none")


def test_a_union_is_told_apart_by_its_kind():
    drawing = Drawing(shape=SquareConfig(side=3.0))
    data = encode(drawing)
    assert data["shape"]["kind"] == "square"
    assert decode(Drawing, data) == drawing
    del data["shape"]["kind"]
    with pytest.raises(ConfigError, match=r"shape.kind: None is not known; there are circle, square"):
        decode(Drawing, data)


def test_another_member_of_a_union_is_chosen_by_its_kind_with_its_defaults():
    assert override(DIGITS, "model", "mlp").model == MLPConfig()
    assert override(DIGITS, "model", '{"kind": "mlp", "z_dim": 7}').model == MLPConfig(z_dim=7)


def test_settings_of_the_chosen_member_follow_it():
    chosen = overrides(DIGITS, [("model", "mlp"), ("model.hidden", "64,32")])
    assert chosen.model == MLPConfig(hidden=(64, 32))


def test_a_group_given_in_part_keeps_the_rest():
    assert override(DIGITS, "model", '{"z_dim": 7}').model == replace(DIGITS.model, z_dim=7)


def test_kind_is_the_class_name_without_config():
    assert kind(R3GANConfig) == "r3gan"
    assert kind(Drawing) == "drawing"


def test_paths_unfold_groups_and_leave_schedules_whole():
    found = paths(DIGITS)
    assert found["objective.gamma"] == DIGITS.objective.gamma
    assert "model" not in found
    assert found["model.widths"] == DIGITS.model.widths


def test_differences_name_path_and_both_values():
    ours = encode(Drawing(width=3))
    theirs = encode(Drawing(shape=CircleConfig(2.0)))
    assert differences(ours, theirs) == ["shape.radius: 1.0, not 2.0", "width: 3, not 1"]
    assert differences({"a": 1}, {"b": 2}) == ["a: 1, not null", "b: null, not 2"]
    assert differences(ours, ours) == []


def test_fingerprint_sees_values_and_not_the_order_of_names():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1, "b": 2}) != fingerprint({"a": 1, "b": 3})


def test_nearest_lists_what_there_is_where_nothing_is_close():
    assert nearest("digit", ["digits", "dcgan"]) == "did you mean digits?"
    assert nearest("xyz", ["digits", "dcgan"]) == "there are dcgan, digits"


def test_what_json_cannot_hold_is_our_mistake():
    with pytest.raises(TypeError, match="a configuration cannot hold"):
        encode({1, 2})


def test_values_by_names_are_written_and_read_back():
    settings = RunSettings(
        "a run", "runs", "digits", "train_gan", "data", wandb_values={"optim.*.lr": 1e-3, "model": "mlp"}
    )
    assert decode(RunSettings, json.loads(json.dumps(encode(settings)))) == settings


def test_settings_in_nested_mappings_have_dotted_paths():
    nested = {"optim": {"kind": "a", "lr": {"start": 1, "end": 0, "images": 9}}, "data": {"cache": {"bytes": 3}}}
    schedule = nested["optim"]["lr"]
    assert list(flatten(nested)) == [("optim.kind", "a"), ("optim.lr", schedule), ("data.cache.bytes", 3)]
    assert list(flatten(nested, whole_kinds=True)) == [("optim", nested["optim"]), ("data.cache.bytes", 3)]
