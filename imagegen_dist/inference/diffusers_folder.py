"""A KL autoencoder as a folder that diffusers' `AutoencoderKL.from_pretrained` opens."""

from __future__ import annotations

import json
from typing import cast

from safetensors.torch import save
from torch import nn

from imagegen_dist import config
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.experiment import Experiment
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.convert import ExportError
from imagegen_dist.inference.encoded import latents_of
from imagegen_dist.inference.latents import latent_statistics
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.origin import run_config, run_of
from imagegen_dist.lineage.diffusers import CONFIG, WEIGHTS, Layout, settings_of, to_diffusers
from imagegen_dist.models.res_vae import ResVAEConfig
from imagegen_dist.objectives.likelihoods import Bernoulli
from imagegen_dist.storage import StorageError, Store
from imagegen_dist.wording import message

_MEASURED = 1000
"""Samples of the training data over which the deviation of latents is measured."""

_CHUNK = 64


def write_diffusers(model: Model, scaling_factor: float, dest: Store) -> None:
    """Write config.json and the weights. Raises ExportError if diffusers has no such autoencoder; StorageError."""
    layout = layout_of(model)
    try:
        settings = settings_of(layout, scaling_factor, model.shape.spatial[0])
    except ValueError as error:
        raise ExportError(str(error)) from error
    tensors = {
        f"{name}/{key}": tensor
        for name in ("encoder", "decoder")
        for key, tensor in model.networks[name].state_dict().items()
    }
    dest.write(WEIGHTS, save(to_diffusers(tensors, layout), {"format": "pt"}))
    dest.write(CONFIG, json.dumps(settings, indent=2).encode())


def layout_of(model: Model) -> Layout:
    """The layout of a model that diffusers' AutoencoderKL can have. Raises ExportError for any other."""
    settings = config.decode(Experiment, model.facts["experiment"]).model
    if not isinstance(settings, ResVAEConfig) or not isinstance(model, AutoencoderModel):
        raise ExportError(
            f"diffusers has no {config.kind(type(settings))}: --to diffusers takes autoencoders of resvae"
        )
    raw = model.networks["encoder"].get_parameter("quant.weight").shape[0]
    outputs = cast(nn.Parameter, model.networks["decoder"].last_layer).shape[0]
    why = ""
    if model.shape.ndim != 2:
        why = f"samples of {model.modality}"
    elif model.classes:
        why = "classes"
    elif settings.norm_over != "all":
        why = "normalisation of single positions"
    elif any(step != (2, 2) for step in settings.steps(2)):
        why = "stages that keep an axis"
    elif raw != 2 * settings.latent_channels:
        why = "latents that are no Gaussian"
    elif outputs != model.shape.channels or isinstance(model.autoencoder.likelihood, Bernoulli):
        why = "a decoder whose outputs are not the sample's values"
    if why:
        raise ExportError(f"diffusers' AutoencoderKL cannot have {why}, as this model has")
    return Layout(settings.widths, settings.blocks, settings.latent_channels, model.shape.channels, settings.attention)


def scaling_factor_of(model: Model, url: str) -> float:
    """1 / standard deviation of the latents: the one that training began with, or measured on the training data.

    url: of the checkpoint that the model was loaded from. Raises ExportError if its run is not known, or if its data
    cannot be read.
    """
    run = run_of(url)
    known = run_config(run) if run else {}
    if begun := (known.get("lineage") or {}).get("scaling_factor"):
        return float(begun)
    place = known.get("data", {}).get("url", "")
    assert isinstance(model, AutoencoderModel)
    try:
        if not place:
            raise ValueError("this model does not say where its training data are")
        data = Store(place)
        index = DatasetIndex.load(data)
        rows = range(0, index.samples, max(1, index.samples // _MEASURED))
        chunks = (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
        return latent_statistics(latents_of(model, index, data, chunk)[0] for chunk in chunks).scale_factor
    except (ValueError, StorageError) as error:
        raise ExportError(
            f"{message(error)}: give --scaling-factor, 1 / standard deviation of the latents, which `imagegen encode` "
            "prints as the scale factor"
        ) from error
