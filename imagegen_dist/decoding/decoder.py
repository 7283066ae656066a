"""The decoder of a dataset of latents, as a network of the models that are trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from imagegen_dist import config
from imagegen_dist.conditions.part import Conditions
from imagegen_dist.decoding.document import FOLDER, NAME, read_origin
from imagegen_dist.decoding.statistics import LatentStatistics
from imagegen_dist.experiment import Experiment, build_networks, conditioning
from imagegen_dist.exported import is_exported, read_exported
from imagegen_dist.nn.tiles import Tiling, tiled, tilings
from imagegen_dist.objectives.base import Randomness
from imagegen_dist.objectives.interface import Generates, Sampler
from imagegen_dist.objectives.variational import Autoencodes
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.training.bounded import Bounded
from imagegen_dist.training.state import below

ROLE = "latent_decoder"
"""The decoder among a model's networks, in checkpoints and exported folders."""
FACT = "latents"
"""What a checkpoint of a model of latents says about them (`LatentDecoder.facts`)."""

_KEPT = ("images", "preset", "experiment")
_KEPT_OF_DATA = ("fingerprint", "modality", "shape", "classes", "class_names", "conditions", "space")
_PARTS = ("decoder", "likelihood")


class LatentDecoder(nn.Module):
    """Latents as a dataset stores them, float32 [B, Z, *s] -> samples [B, C, *S] in [-1, 1].

    decoder, likelihood: those of the autoencoder. facts: JSON values from which `build_decoder` makes an equal module,
    except for weights. shape: of a sample; latent_dims: (Z, *s); width: length of the vector that the decoder is
    conditioned on, 0 for none.
    """

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: nn.Module,
        facts: Mapping[str, Any],
        shape: SampleShape,
        latent_dims: tuple[int, ...],
        width: int,
    ) -> None:
        super().__init__()
        self.decoder, self.likelihood = decoder, likelihood
        self.facts, self.shape, self.latent_dims, self.width = facts, shape, latent_dims, width
        self._cuts: list[Tiling] = []
        mean, scale = LatentStatistics.from_payload(facts["statistics"]).columns(1 + len(latent_dims))
        self.register_buffer("_mean", mean, persistent=False)
        self.register_buffer("_scale", scale, persistent=False)
        self.eval().requires_grad_(False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the exported autoencoder's weights."""
        return str(self.facts["autoencoder"]["sha256"])

    def fit_(self, latent_dims: tuple[int, ...]) -> bool:
        """True if it decodes latents (Z, *s), whose extents become its own.

        A convolutional decoder takes any extents, in tiles of those that it was trained on; a causal one takes clips of
        any length as a whole.
        """
        if latent_dims == self.latent_dims:
            return True
        factors: tuple[int, ...] = getattr(self.decoder, "factors", ())
        (channels, *trained), (given, *extents) = self.latent_dims, latent_dims
        if not factors or given != channels or len(extents) != len(trained):
            return False
        if not getattr(self.decoder, "causal", False) or extents[1:] != trained[1:]:
            self._cuts = tilings(trained, None, None, cast(Any, self.decoder).reach)
        spatial = tuple(extent * factor for extent, factor in zip(extents, factors, strict=True))
        self.latent_dims, self.shape = latent_dims, replace(self.shape, spatial=spatial)
        return True

    def forward(self, stored: Tensor, label: Tensor | None = None) -> Tensor:
        """label: [B], [B, K] or None; ignored by a decoder that takes none."""
        z = stored * self.get_buffer("_scale") + self.get_buffer("_mean")
        told = label if self.width else None

        def decoded(part: Tensor) -> Tensor:
            return cast(Tensor, cast(Any, self.likelihood).mean(self.decoder(part, told)))

        if not self._cuts:
            return decoded(z)
        factors = cast(Any, self.decoder).factors
        return tiled(decoded, z, self._cuts, (1,) * len(factors), factors)


class DecodingSampler:
    """A sampler of latents followed by their decoder: its samples are the autoencoder's."""

    def __init__(self, latent: Sampler, decoder: LatentDecoder) -> None:
        self.latent, self._decoder = latent, decoder
        self.continuous = latent.continuous

    def modules(self) -> dict[str, nn.Module]:
        """The networks of the sampler of latents, and the decoder."""
        return {**self.latent.modules(), ROLE: self._decoder}

    def prior(self, count: int, draw: Randomness) -> Tensor:
        """Draws of the prior of the sampler of latents."""
        return self.latent.prior(count, draw)

    def generate(self, drawn: Tensor, label: Tensor | None = None) -> Tensor:
        """The decoded samples for draws of the prior, [B, C, *S] in [-1, 1]."""
        return self._decoder(self.latent.generate(drawn, label), label)


def build_decoder(facts: Mapping[str, Any], tensors: Mapping[str, Tensor], url: str) -> LatentDecoder:
    """The decoder that a model's facts describe, with these weights, on the CPU. url: of the model, for errors.

    tensors: by "part/name", or by "part.name" as of a module. Raises CheckpointError if they do not fit together.
    """
    try:
        about = facts["autoencoder"]
        experiment = config.decode(Experiment, about["experiment"])
        shape, labels = config.decode(SampleShape, about["data"]["shape"]), _labels(about["data"])
        objective = experiment.objective
        if not isinstance(objective, Autoencodes):
            raise CheckpointError(f"{url}: the decoder of its latents is not that of an autoencoder")
        with Bounded(url, tensors, shape):
            autoencoder = objective.autoencoder(build_networks(experiment, shape, labels))
        parts = autoencoder.modules()
        likelihood, [dims] = cast(nn.Module, autoencoder.likelihood), autoencoder.group_dims
        width = conditioning(experiment, labels)
        found = LatentDecoder(parts["decoder"], likelihood, facts, shape, tuple(dims), width)
        found.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{url}: the decoder of its latents cannot be built ({error})") from error
    return found


def read_decoder(dataset: Store) -> LatentDecoder | None:
    """The decoder of a dataset of latents, from the autoencoder below it; None for other datasets and older ones.

    Raises CheckpointError if the autoencoder is not the one that made the latents, or cannot be read; ValueError if
    latents.json is corrupt; StorageError.
    """
    origin = read_origin(dataset)
    if origin is None:
        return None
    folder = dataset / FOLDER
    if not is_exported(folder):
        raise CheckpointError(f"{folder} is missing: {NAME} says that the latents' autoencoder is there")
    facts, tensors = read_exported(folder)
    if facts["weights"]["sha256"] != origin.autoencoder:
        raise CheckpointError(f"{folder} is not the autoencoder that made these latents: its weights differ")
    parts = {f"{part}.{name}": value for part in _PARTS for name, value in below(tensors, part).items()}
    return build_decoder(_facts(dataset, facts), parts, folder.url)


def _facts(dataset: Store, exported: Mapping[str, Any]) -> dict[str, Any]:
    about = {name: exported[name] for name in _KEPT if name in exported}
    data = {name: exported["data"][name] for name in _KEPT_OF_DATA if name in exported["data"]}
    autoencoder = {"sha256": exported["weights"]["sha256"], **about, "data": data}
    return {"statistics": LatentStatistics.load(dataset).payload(), "autoencoder": autoencoder}


def _labels(data: Mapping[str, Any]) -> Conditions | int | None:
    return Conditions.from_payload(data["conditions"]) if data.get("conditions") else data["classes"]


def decodes(experiment: Experiment) -> bool:
    """True if what the experiment generates can be decoded: an autoencoder of latents encodes and decodes latents."""
    return isinstance(experiment.objective, Generates) and not isinstance(experiment.objective, Autoencodes)
