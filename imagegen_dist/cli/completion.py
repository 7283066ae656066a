"""Completion of words on TAB: a script for each shell asks the command itself which words may come next."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence

from imagegen_dist.cli.catalogue import catalogue, job_of, presets_of, settings_of
from imagegen_dist.cli.published import PUBLISHED

_SCRIPTS = {
    "bash": """\
_imagegen() {
    local IFS=$'\\n'
    COMPREPLY=($(imagegen --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _imagegen imagegen""",
    "zsh": """\
#compdef imagegen
_imagegen() {
    local -a found
    found=("${(@f)$(imagegen --complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[*]}" ]]; then compadd -a found; else _files; fi
}
compdef _imagegen imagegen""",
    "fish": """\
complete -c imagegen -a '(imagegen --complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'""",
}
SHELLS = tuple(_SCRIPTS)


def script(shell: str) -> str:
    """The script that a shell has to read, e.g. by `source <(imagegen --print-completion bash)`."""
    return _SCRIPTS[shell]


def candidates(options: type, command: str, before: Sequence[str], word: str) -> list[str]:
    """Words that may take the place of `word` after the words `before` of a command; none where files may come.

    options: the dataclass of the command's flags.
    """
    hints = typing.get_type_hints(options)
    flags = {f"--{field.name.replace('_', '-')}": hints[field.name] for field in dataclasses.fields(options)}
    last = before[-1] if before else ""
    found: list[str] = []
    if typing.get_origin(flags.get(last)) is typing.Literal:
        found = [str(choice) for choice in typing.get_args(flags[last])]
    elif word.startswith("-"):
        found = list(flags)
        if command in ("train", "sweep"):
            preset = next((each for each in before if job_of(each)), "")
            found += [f"--{path}" for path in settings_of(preset)]
    elif not before and command == "train":
        found = list(presets_of("train"))
    elif not before and command == "sweep":
        found = [*catalogue()["searches"], *presets_of("train")]
    elif not before and command == "reproduce":
        found = list(PUBLISHED)
    return sorted({each for each in found if each and each.startswith(word)})
