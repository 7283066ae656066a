"""`imagegen`, the command whose sub-commands are all others. It imports one of them, and none to print its help."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from imagegen_dist import __version__
from imagegen_dist.cli.completion import SHELLS, candidates, script
from imagegen_dist.commands import programs
from imagegen_dist.config import nearest
from imagegen_dist.errors import DONE, MISUSED


class _Command(NamedTuple):
    """A sub-command: its module in imagegen_dist.cli, the function that runs it, the dataclass of its flags."""

    summary: str
    module: str
    main: str = "main"
    options: str = "Options"


_COMMANDS = {
    "train": _Command("train a GAN or a VAE", "train"),
    "sweep": _Command("search an experiment's values, e.g. learning rates", "sweep"),
    "evaluate": _Command("measure a trained model: FID, KID, precision and recall, ...", "evaluate.command"),
    "reproduce": _Command("a script from the data to a published figure, and its cost", "reproduce"),
    "serve": _Command("trained models over HTTP, for pages and programs", "serve"),
    "sample": _Command("pictures, animations and shards of a trained model's samples", "sample"),
    "project": _Command("find the latents of pictures, and edit them", "project"),
    "export": _Command("a trained model for the Hugging Face Hub, torch.export or ONNX", "export"),
    "encode": _Command("a dataset of an autoencoder's latents", "encode"),
    "data pack": _Command("pack pictures into shards", "data"),
    "data index": _Command("index shards that others wrote", "data", "main_index", "IndexOptions"),
    "data check": _Command("check the shards of a dataset", "data", "main_check", "CheckOptions"),
    "runs list": _Command(
        "the runs below a storage URL, with their state and figures", "runs", "main_list", "ListOptions"
    ),
    "runs show": _Command("one run: settings, figures, checkpoints, next commands", "runs", "main_show", "RunsOptions"),
    "runs compare": _Command(
        "settings that differ between runs, and figures side by side", "runs", "main_compare", "RunsOptions"
    ),
    "runs open": _Command("a run's report in the browser", "runs", "main_open", "RunsOptions"),
    "runs clean": _Command("remove a run, or its old checkpoints", "runs", "main_clean", "CleanOptions"),
    "clean": _Command("what killed jobs left on this machine", "clean"),
    "spot-watch": _Command("drain this machine's Ray node before the machine is taken away", "spot"),
}
_GROUPS = ("data", "runs")
_SUMMARY = "Distributed training of GANs and VAEs on Ray."


def main(arguments: Sequence[str] | None = None) -> int:
    """`imagegen`: returns the exit code, as named in errors.py."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    match words:
        case [] | ["-h" | "--help", *_]:
            print(_help(""))
            return DONE if words else MISUSED
        case ["--version", *_]:
            print(f"imagegen {__version__}")
            return DONE
        case ["--print-completion", shell] if shell in SHELLS:
            print(script(shell))
            return DONE
        case ["--print-completion", *_]:
            return _complain(f"--print-completion takes one of {', '.join(SHELLS)}")
        case ["--complete", *typed]:
            print("\n".join(_complete(typed)))
            return DONE
    name, rest = words[0], words[1:]
    if name in _GROUPS:
        if not rest or rest[0] in ("-h", "--help"):
            print(_help(name))
            return DONE if rest else MISUSED
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name not in _COMMANDS:
        group = f"{words[0]} " if words[0] in _GROUPS else ""
        known = [each.removeprefix(group) for each in (_COMMANDS if group else _top_level()) if each.startswith(group)]
        return _complain(f"there is no command {name!r}; {nearest(name.removeprefix(group), known)}")
    alone = {"alone": True} if name == "train" and arguments is None else {}
    return int(getattr(_module(_COMMANDS[name].module), _COMMANDS[name].main)(rest, **alone))


def _help(group: str) -> str:
    """What --help prints: the commands of a group, or all."""
    shown = {name: each.summary for name, each in _COMMANDS.items() if not group or name.startswith(f"{group} ")}
    program = _program()
    lines = [f"usage: {program} {group or 'COMMAND'} ...", "", _SUMMARY, "", "commands"]
    lines += [f"  {name:<14} {summary}" for name, summary in shown.items()]
    first = next(iter(shown))
    lines += ["", f"  {program} {first} --help"]
    if not group:
        lines += [f"  {program} --version", f"  {program} --print-completion {'|'.join(SHELLS)}"]
    return "\n".join(lines)


def _top_level() -> list[str]:
    return list(dict.fromkeys(name.split()[0] for name in _COMMANDS))


def _module(name: str) -> object:
    return importlib.import_module(f"imagegen_dist.cli.{name}")


def _complete(typed: Sequence[str]) -> list[str]:
    """The words that may take the place of the last one that was typed."""
    *before, word = typed or [""]
    known = [name.split() for name in _COMMANDS]
    if names := {name[len(before)] for name in known if name[: len(before)] == before and len(name) > len(before)}:
        return sorted(name for name in names if name.startswith(word))
    depth = 2 if before[:1] and before[0] in _GROUPS else 1
    name = " ".join(before[:depth])
    if name not in _COMMANDS:
        return []
    return candidates(getattr(_module(_COMMANDS[name].module), _COMMANDS[name].options), name, before[depth:], word)


def _program() -> str:
    """The name of this command as the user typed it."""
    called = programs()
    return called.removesuffix(" {}") if called.endswith(" {}") else "imagegen"


def _complain(line: str) -> int:
    print(f"{_program()}: {line} (see {_program()} --help)", file=sys.stderr)
    return MISUSED
