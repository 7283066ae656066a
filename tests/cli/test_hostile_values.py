"""Values that no flag expects: each is taken, or answered with one line and exit code 2, and nothing is started."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from imagegen_dist.cli import (
    clean,
    data,
    encode,
    export,
    project,
    reproduce,
    runs,
    sample,
    serve,
    spot,
    sweep_options,
    train_options,
)
from imagegen_dist.cli.command import parse_flags, run_command
from imagegen_dist.cli.device import pick_device
from imagegen_dist.cli.evaluate import options as evaluate
from imagegen_dist.cli.imagegen import _COMMANDS
from imagegen_dist.cli.make_shards import command_of, parse_bytes
from imagegen_dist.cli.sample_seeds import parse_asked
from imagegen_dist.cli.serve_token import check_token
from imagegen_dist.errors import DONE, MISUSED

VALUES = ("", "-1", "0", "nan", "1e400", "9" * 400, 'it\'s "quoted" ünï\x00\U0001f600', "a/b/../../c d")

Parse = Callable[[Sequence[str]], object]


def sampling(words: Sequence[str]) -> None:
    options = sample.parse(words)
    parse_asked(options.seeds or "0", options.classes, options.mix, options.truncation)
    pick_device(options.device)
    parse_bytes(options.shard_size)


def encoding(words: Sequence[str]) -> None:
    options = encode.parse(words)
    pick_device(options.device)
    parse_bytes(options.shard_size)


def projecting(words: Sequence[str]) -> None:
    pick_device(project.parse(words).device)


def serving(words: Sequence[str]) -> None:
    options = serve.parse(words)
    pick_device(options.device)
    check_token(options.token)


def of_runs(name: str, options: type[Any], do: Callable[[Any], object]) -> Parse:
    return lambda words: do(parse_flags(options, f"runs {name}", words))


# For each command: what parses and checks its words, the flags, and words without which nothing is looked into.
COMMANDS: dict[str, tuple[Parse, type, tuple[str, ...]]] = {
    "train": (partial(train_options.parse, "train"), train_options.Options, ("digits",)),
    "train_gan": (partial(train_options.parse, "train_gan"), train_options.Options, ("digits",)),
    "train_vae": (partial(train_options.parse, "train_vae"), train_options.Options, ()),
    "sweep": (sweep_options.parse, sweep_options.Options, ("gan-lr",)),
    "evaluate": (evaluate.parse, evaluate.Options, ("run",)),
    "sample": (sampling, sample.Options, ("run", "--grid", "a.png")),
    "project": (projecting, project.Options, ("run", "a.png", "--out", "out")),
    "serve": (serving, serve.Options, ("run",)),
    "export": (export.parse, export.Options, ("run", "out")),
    "reproduce": (reproduce.parse, reproduce.Options, ("r3gan-cifar10",)),
    "encode": (encoding, encode.Options, ("run", "out", "--data", "shards")),
    "data pack": (lambda words: command_of(data.parse(words)), data.Options, ("in", "out")),
    "data index": (data._parse_index, data.IndexOptions, ("in",)),
    "data check": (data._parse_check, data.CheckOptions, ("in",)),
    "runs list": (of_runs("list", runs.ListOptions, lambda _: None), runs.ListOptions, ()),
    "runs show": (of_runs("show", runs.RunsOptions, runs._show), runs.RunsOptions, ("run",)),
    "runs compare": (of_runs("compare", runs.RunsOptions, runs._compare), runs.RunsOptions, ("one", "two")),
    "runs open": (of_runs("open", runs.RunsOptions, runs._open), runs.RunsOptions, ("run",)),
    "runs clean": (of_runs("clean", runs.CleanOptions, lambda _: None), runs.CleanOptions, ("run",)),
    "clean": (partial(parse_flags, clean.Options, "clean"), clean.Options, ()),
    "spot-watch": (spot.parse, spot.Options, ()),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_hostile_values_of_every_flag(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parse, options, needed = COMMANDS[command]
    monkeypatch.chdir(tmp_path)

    def check(words: Sequence[str]) -> None:
        parse(words)

    for number, field in enumerate(dataclasses.fields(options)):
        name = field.name.replace("_", "-")
        for place, value in enumerate(VALUES):
            given = [f"--{name}={value}"] if (number + place) % 2 else [f"--{name}", value]
            code = run_command("train", [*needed, *given], lambda _: "", check)
            said = capsys.readouterr().err
            assert (code, said.count("\n")) in ((DONE, 0), (MISUSED, 1)), (given, code, said)
            assert len(said) < 1000, given
    assert not list(tmp_path.iterdir())


def test_every_command_is_tried() -> None:
    assert set(COMMANDS) >= set(_COMMANDS)
