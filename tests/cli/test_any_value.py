"""Whatever a user gives as a value is taken or answered with one line: no other exception leaves a command's parser."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imagegen_dist import config
from imagegen_dist.cli import data as shards
from imagegen_dist.cli import encode, export, sample, serve
from imagegen_dist.cli import sweep_options as sweep
from imagegen_dist.cli.evaluate import command as evaluate
from imagegen_dist.cli.make_shards import command_of
from imagegen_dist.cli.sample_seeds import parse_asked
from imagegen_dist.cli.train_options import parse
from imagegen_dist.experiment import Experiment
from imagegen_dist.presets import PRESETS

DEEP, LONG = "[" * 100_000, "9" * 10_000
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "nan", "-inf", "1e400", "none", "true", "0x10", "1:2:x", "1:nan:3", "::", ",,", "a,b", "--", "[[1]]"]
    ),
    st.sampled_from(['{"kind": ["a"]}', '{"kind": {}}', '{"start": [], "end": {}, "images": null}', '[null, "a"]']),
    st.sampled_from([DEEP, '{"a":' * 100_000, LONG, f"[{LONG}]", f"-{LONG}.0"]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(int("9" * 400)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "start", "end", "a"]), inner),
    max_leaves=5,
)
PATHS = {
    (preset.job, name, path)
    for name, preset in PRESETS.items()
    for path in (*config.paths(preset.experiment), "model", "objective", "optim", "training", "objective.gamma.end")
}


def asked(words: Sequence[str]) -> object:
    """The samples that the words of the sampling command ask for."""
    options = sample.parse(words)
    return parse_asked(options.seeds or "0", options.classes, options.mix, options.truncation)


FLAGS: dict[str, tuple[Callable[[Sequence[str]], Any], type]] = {
    "encode": (encode.parse, encode.Options),
    "evaluate": (evaluate.parse, evaluate.Options),
    "export": (export.parse, export.Options),
    "make_shards": (lambda words: command_of(shards.parse(words)), shards.Options),
    "sample": (asked, sample.Options),
    "serve": (serve.parse, serve.Options),
    "sweep": (sweep.parse, sweep.Options),
}


def answered(command: Callable[[], object]) -> None:
    """Run it: it takes what it is given, or raises a ValueError, whose message a job prints as one line."""
    with contextlib.suppress(ValueError), contextlib.redirect_stdout(io.StringIO()):
        command()


@settings(max_examples=100)
@given(st.sampled_from(sorted(PATHS)), TEXTS)
@example(("train_gan", "digits", "data.cache.timeout_s"), LONG)
@example(("train_gan", "digits", "objective"), '{"kind": {"a": 1}}')
@example(("train_vae", "digits-vae", "objective"), '[1, "a"]')
@example(("train_gan", "digits", "training.seed"), DEEP)
def test_any_text_for_any_setting(place: tuple[str, str, str], text: str) -> None:
    job, preset, path = place
    answered(lambda: parse(job, [preset, f"--{path.replace('_', '-')}={text}"]))


@settings(max_examples=40)
@given(st.sampled_from(sorted(PATHS)), JSON)
def test_any_json_for_any_setting_of_a_config_file(place: tuple[str, str, str], value: Any) -> None:
    job, preset, path = place
    document: Any = value
    for name in reversed(path.split(".")):
        document = {name: document}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        for written in ({"experiment": document}, document, {path: value}, {"experiment": value}):
            file.write_text(json.dumps(written))
            answered(lambda: parse(job, [preset, "--config", str(file)]))


@settings(max_examples=150)
@given(st.sampled_from(sorted(PRESETS)), st.data())
def test_any_json_in_the_place_of_a_whole_experiments_part(preset: str, data: st.DataObject) -> None:
    encoded = config.encode(PRESETS[preset].experiment)
    group = data.draw(st.sampled_from(sorted(encoded)))
    encoded[group] = data.draw(JSON)
    answered(lambda: config.decode(Experiment, encoded))


@settings(max_examples=60)
@given(st.sampled_from(sorted(FLAGS)), st.data())
def test_any_text_for_any_flag_of_a_job(job: str, data: st.DataObject) -> None:
    parse_words, options = FLAGS[job]
    name = data.draw(st.sampled_from(sorted(options.__dataclass_fields__)))
    text = data.draw(TEXTS)
    answered(lambda: parse_words([f"--{name.replace('_', '-')}={text}"]))
    answered(lambda: parse_words(["a", "b", f"--{name.replace('_', '-')}", text]))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 900 + "1" + "}" * 900, '{"experiment": 5}', "[1]", "nul", ""]
)
def test_a_config_file_of_any_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError) as caught:
        parse("train_gan", ["--config", str(tmp_path / "config.json")])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
