"""The job that exports a trained model: for Hugging Face, as torch.export programs, or as ONNX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from imagegen_dist.cli.command import Package, Switch, flag, flags_help, parse_flags, run_command
from imagegen_dist.commands import name_of
from imagegen_dist.errors import TaskError, UsageError
from imagegen_dist.extras import install_hint
from imagegen_dist.metrics.formatting import count
from imagegen_dist.storage import Store, reached
from imagegen_dist.wording import counted, first_line

if TYPE_CHECKING:
    from imagegen_dist.inference.model import Model

_JOB = "export"
_SUMMARY = (
    "Export a trained model as a folder for the Hugging Face Hub and load() (hf: config.json, model.safetensors and a "
    "model card), as torch.export programs (torch), as ONNX models that are compared with PyTorch (onnx), as an "
    "AutoencoderKL of diffusers (diffusers), or as a page that runs it in the visitor's browser (web)."
)


@dataclass(frozen=True)
class Options:
    """Flags of the job."""

    checkpoint: Annotated[str, tyro.conf.Positional, flag("CHECKPOINT")] = ""
    """A run (its newest complete checkpoint), a checkpoint directory, or an exported folder; a path or URL."""
    dest: Annotated[str, tyro.conf.Positional, flag("DEST")] = ""
    """A new or empty folder; a path or URL."""
    package: Package = ""
    """Your own module that registers the model's objective and networks; its code is run."""
    to: Annotated[Literal["hf", "torch", "onnx", "diffusers", "web"], flag("hf|torch|onnx|diffusers|web")] = "hf"
    """hf, torch (.pt2 files), onnx, diffusers (autoencoders like kl-f8), or web (a page); torch and onnx take any
    batch size. Default: hf."""
    single_file: Switch = False
    """With --to web: one index.html that opens from disk, in place of a folder for a server."""
    webgpu: Switch = False
    """With --to web: add the WebGPU backend, 27 MB, for models that are slow in WebAssembly."""
    ort: Annotated[str, flag("FOLDER")] = ""
    """With --to web: take ONNX Runtime Web from here, e.g. node_modules/onnxruntime-web/dist. Default: fetched from
    the npm registry once."""
    scaling_factor: Annotated[float | None, flag("X")] = None
    """With --to diffusers: 1 / standard deviation of the latents. Default: that of the diffusers autoencoder that
    training began with, or measured on the training data."""
    discriminator: Switch = False
    """Export the discriminator too, with the weights of its last step."""
    directions: Switch = False
    """With --to hf or onnx: find the directions of the latent space, and write them into config.json or export.json."""
    license: Annotated[str, flag("ID")] = ""
    """Licence of the weights in the model card, e.g. apache-2.0 or cc-by-4.0. Default: unknown."""
    push: Annotated[str, flag("USER/NAME")] = ""
    """Also push, with the token of `hf auth login`: with --to hf to this repository of the Hub, with --to web to this
    static Space."""


def main(arguments: Sequence[str] | None = None) -> int:
    """`imagegen export`: returns the exit code, as named in errors.py."""
    return run_command(
        _JOB, arguments, lambda _: flags_help(Options, _JOB, _SUMMARY), lambda words: print(_run(parse(words)))
    )


def parse(words: Sequence[str]) -> Options:
    """Read the job's arguments. Raises UsageError."""
    options = parse_flags(Options, _JOB, words)
    if not options.checkpoint or not options.dest:
        raise UsageError(f"CHECKPOINT and DEST are needed (see {name_of(_JOB)} --help)")
    if options.push and (options.to not in ("hf", "web") or options.single_file):
        raise UsageError(f"--push {options.push}: goes with --to hf, and with --to web without --single-file")
    for name in ("single_file", "webgpu", "ort"):
        if getattr(options, name) and options.to != "web":
            raise UsageError(f"--{name.replace('_', '-')}: goes with --to web")
    if options.directions and options.to not in ("hf", "onnx"):
        raise UsageError("--directions: goes with --to hf and --to onnx; a page of --to web has them")
    if options.scaling_factor is not None and (options.to != "diffusers" or options.scaling_factor <= 0):
        raise UsageError(f"--scaling-factor {options.scaling_factor:g}: a positive number, with --to diffusers")
    if options.push and not re.fullmatch(r"[\w.-]+/[\w.-]+", options.push):
        raise UsageError(f"--push {options.push}: give USER/NAME")
    return options


def _run(options: Options) -> str:
    """Export; what to print at the end. Raises ValueError before anything is written, TaskError."""
    from imagegen_dist.inference.convert import TOLERANCE, check_installed  # they import torch
    from imagegen_dist.inference.folder import LICENCE, card_of, write_folder
    from imagegen_dist.inference.loading import build_model, read_trained
    from imagegen_dist.inference.program_files import write_programs
    from imagegen_dist.inference.programs import programs, weighted
    from imagegen_dist.inference.torch_model import page_of

    if options.license and not LICENCE.fullmatch(options.license):
        raise UsageError(f"--license {options.license}: an identifier of the Hub, e.g. apache-2.0, mit or other")
    dest = reached(options.dest)
    if dest.exists() and (dest.names() or ((path := dest.local_path()) and not path.is_dir())):
        raise UsageError(f"DEST {options.dest} holds something already: choose another place, or remove it")
    if options.to in ("onnx", "web"):
        check_installed()
    if options.push:
        _check_hub()
    trained = read_trained(options.checkpoint, options.discriminator)
    model = build_model(trained)
    if options.to == "diffusers":
        return _to_diffusers(options, model, trained.url, dest)
    if options.to == "web":
        from imagegen_dist.cli.export_web import export_page

        said = export_page(model, trained.url, dest, options)
        return f"{said}\n{_push_space(dest, options.push)}" if options.push else said
    if options.to != "hf":
        parts, page = programs(model), None
        if options.to == "onnx":  # discriminators alone take class numbers
            parts = {name: part if name == "discriminator" else weighted(part) for name, part in parts.items()}
            page = page_of(model, trained.url, options.directions)
        lines = write_programs(model, parts, options.to, dest, page)
        held = f"each within {TOLERANCE:g} of PyTorch on batches of 1, 2 and 5"
        return "\n".join([*lines, f"{counted(len(lines), 'program')}, {held}: {dest}"])
    card = card_of(model, trained.url, options.license)
    write_folder(model, card, dest, options.directions)
    parameters = ", ".join(f"{name} {count(number)}" for name, number in card.parameters.items())
    said = f"{parameters} parameters, {model.images:,} images seen: {dest}"
    return f"{said}\n{_push(dest, options.push)}" if options.push else said


def _to_diffusers(options: Options, model: Model, url: str, dest: Store) -> str:
    """Export an autoencoder for diffusers; what to print at the end. Raises ValueError."""
    from imagegen_dist.inference.diffusers_folder import layout_of, scaling_factor_of, write_diffusers

    layout_of(model)
    factor = options.scaling_factor or scaling_factor_of(model, url)
    write_diffusers(model, factor, dest)
    return f"scaling factor {factor:.4g}, {model.images:,} images seen: AutoencoderKL.from_pretrained({dest.url!r})"


def _check_hub() -> None:
    """Raises UsageError where the Hub's client, or a token for it, is not at hand."""
    try:
        from huggingface_hub import get_token
    except ImportError:
        raise UsageError(f"--push needs huggingface_hub: {install_hint('export')}") from None
    if get_token() is None:
        raise UsageError("--push needs a token: `hf auth login`, or HF_TOKEN in the environment")


def _push_space(dest: Store, repository: str) -> str:
    """Push a page as a static Space; a line that says where it is. Raises TaskError."""
    from huggingface_hub import HfApi

    if (folder := dest.local_path()) is None:
        raise TaskError(f"{dest} is written; --push takes it from a local DEST alone")
    try:
        api = HfApi()
        made = api.create_repo(repository, repo_type="space", space_sdk="static", exist_ok=True)
        api.upload_folder(repo_id=repository, repo_type="space", folder_path=str(folder))
    except Exception as error:  # of whatever kind, it is one line for the user
        raise TaskError(f"{dest} is written, but not pushed to {repository}: {first_line(error)}") from error
    return f"  pushed to {made}"


def _push(dest: Store, repository: str) -> str:
    """Push an exported folder; a line that says where it is. Raises TaskError."""
    from huggingface_hub import HfApi

    from imagegen_dist.exported import CONFIG
    from imagegen_dist.inference.hub import HubModel

    folder = dest.local_path()
    if folder is None:
        raise TaskError(f"{dest / CONFIG} is written; --push takes it from a local DEST alone")
    try:
        HubModel.from_pretrained(str(folder)).push_to_hub(repository)
    except Exception as error:  # of whatever kind, it is one line for the user
        raise TaskError(f"{dest} is written, but not pushed to {repository}: {first_line(error)}") from error
    return f"  pushed to {HfApi().endpoint}/{repository}"
