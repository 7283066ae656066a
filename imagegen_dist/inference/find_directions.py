"""How directions of a latent space are found: in closed form, from activations, from scores, from encoded samples.

sefa     the right singular vectors of the first layer that sees z (SeFa, arXiv:2007.06600, Eq. 5)
pca      principal components of the activations of a middle layer, regressed on z (after GANSpace, arXiv:2004.02546)
scores   a measurement of the samples, regressed on z

What a label explains is removed from activations and scores first, so that a direction does not change the class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagegen_dist.data.modality import to_stored
from imagegen_dist.inference.directions import Direction, Directions, orthogonalised
from imagegen_dist.inference.scores import Score, scores_for

if TYPE_CHECKING:
    from imagegen_dist.inference.autoencoder import AutoencoderModel
    from imagegen_dist.inference.model import Model

KINDS = ("scores", "pca", "sefa")
_SEED = 2**63  # of the samples that are measured: no user's
_CELLS = 4  # along each axis, to which activations are averaged
_LEAST_EXPLAINED = 0.05  # of a score's variance, for its direction to be kept
_LEAST_SHARE = 0.01  # of the variance of activations
_POOLS: tuple[Callable[..., Tensor], ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)


def find_directions(
    model: Model,
    kinds: Sequence[str] = ("scores", "pca"),
    count: int = 8,
    scores: Mapping[str, Score] | None = None,
    samples: int = 1000,
) -> Directions:
    """The directions of these kinds in this order, orthogonal to one another: later ones give way to earlier ones.

    count: of "pca" and "sefa", each, at most. scores: functions of samples uint8 [B, C, *S] to numbers [B], by name;
    simple measurements by default. samples: number that is generated and measured; the result is a function of it and
    of the model. Raises ValueError for an unknown kind, and for latents that are codes or maps.
    """
    _check(model, kinds)
    found: list[Direction] = []
    seen = _Seen(model, max(samples, 4 * model.latents(1).shape[1])) if set(kinds) - {"sefa"} else None
    for kind in kinds:
        if kind == "sefa":
            found += closed_form(model, count)
        elif kind == "pca":
            assert seen is not None
            found += seen.components(count)
        else:
            assert seen is not None
            shape = model.shape
            found += seen.scored(scores if scores is not None else scores_for(shape.channels, shape.ndim))
    if not found:
        return Directions([])
    vectors, kept = orthogonalised(torch.stack([each.vector for each in found]))
    entries = [
        Direction(found[number].name, vector, found[number].explains, found[number].of)
        for vector, number in zip(vectors, kept, strict=True)
    ]
    if seen is None:
        return Directions(entries)
    explained = [seen.explained(entry) for entry in entries]
    return Directions(each for each in explained if each.explains >= _least(each))


def _least(entry: Direction) -> float:
    """The share of variance below which a direction is not shown."""
    return _LEAST_EXPLAINED if entry.of.startswith("the score ") else _LEAST_SHARE


def _check(model: Model, kinds: Sequence[str]) -> None:
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"directions {unknown[0]!r}: the kinds are {', '.join(KINDS)}")
    if not model.gaussian:
        raise ValueError("this model's latents are codes, which have no directions")
    if model.latents(1).ndim != 2:
        raise ValueError(f"latents of this model are maps {list(model.latents(1).shape[1:])}: directions need vectors")


def closed_form(model: Model, count: int) -> list[Direction]:
    """SeFa: the directions of z that move the output of the first layer most, and their shares of its variance."""
    _, lengths, directions = torch.linalg.svd(first_layer(model), full_matrices=False)
    shares = lengths**2 / (lengths**2).sum()
    of = "the first layer's output"
    return [
        Direction(f"sefa{number + 1}", directions[number], float(shares[number]), of)
        for number in range(min(count, len(directions)))
    ]


def first_layer(model: Model) -> Tensor:
    """The matrix of the first layer that sees z, float32 [outputs, Z]: its Jacobian, since it is linear."""
    z = torch.zeros(1, model.latents(1).shape[1], device=model.device, requires_grad=True)
    with torch.enable_grad():
        (_, output), *_ = _layers(model, z)
        rows = torch.eye(output.numel(), device=model.device).reshape(-1, *output.shape)
        (matrix,) = torch.autograd.grad(output, z, rows, is_grads_batched=True)
    return matrix[:, 0].detach().float().cpu()


def _layers(model: Model, z: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """The layers with weights whose output depends on z, in the order of computation, with their outputs."""
    seen: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            seen.append((module, output))

    weighted = [module for module in model.networks.modules() if list(module.parameters(recurse=False))]
    hooks = [module.register_forward_hook(note) for module in weighted]
    try:
        model.sampler.generate(z, _on(model, model.labels(len(z))))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


class _Seen:
    """Samples of the prior with their activations, freed of what labels explain."""

    def __init__(self, model: Model, count: int) -> None:
        z, label = model.latents(count, _SEED), model.labels(count)
        samples, activations = _observed(model, z, label)
        self.samples = samples
        self._clean = _without(label, model.classes)
        self.z = self._clean(z)
        self.activations = self._clean(activations)
        self._values: dict[str, Tensor] = {}

    def components(self, count: int) -> list[Direction]:
        """The principal components of the activations that z predicts best, the largest first."""
        variances, vectors = torch.linalg.eigh(self.activations @ self.activations.T)
        sizes = variances.flip(0)[:count].clamp_min(0).sqrt()
        values = vectors.flip(1)[:, :count] * sizes
        return [
            Direction(f"pca{number + 1}", vector, 0.0, "the activations of a middle layer")
            for number, vector in enumerate(self._regressed(values))
            if float(sizes[number]) > 0
        ]

    def scored(self, scores: Mapping[str, Score]) -> list[Direction]:
        """A direction of each score that z predicts, the best predicted first."""
        found = []
        for name, score in scores.items():
            values = torch.as_tensor(score(self.samples)).detach().float().cpu().reshape(-1)
            if values.shape != (len(self.samples),) or not values.isfinite().all():
                raise ValueError(f"score {name}: it must return one finite number for each of {len(self.samples)}")
            self._values[name] = self._clean(values[:, None])
            vector = self._regressed(self._values[name])[0]
            found.append(self.explained(Direction(name, vector, 0.0, f"the score {name}")))
        kept = [each for each in found if each.explains >= _LEAST_EXPLAINED]
        return sorted(kept, key=lambda each: -each.explains)

    def explained(self, entry: Direction) -> Direction:
        """The direction with the share of variance that its coordinate explains by itself."""
        if entry.of == "the first layer's output":
            return entry
        values = self._values.get(entry.name, self.activations)
        coordinate = self.z @ entry.vector
        covariance = coordinate @ values / coordinate.norm().clamp_min(1e-12)
        share = float((covariance**2).sum() / (values**2).sum().clamp_min(1e-12))
        return Direction(entry.name, entry.vector, share, entry.of)

    def _regressed(self, values: Tensor) -> Tensor:
        """Unit vectors along which z predicts values [N, M], by least squares, [M, Z]."""
        return F.normalize(torch.linalg.lstsq(self.z, values).solution.T, dim=1)


def _observed(model: Model, z: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
    """(samples uint8 [N, C, *S], activations [N, D] of the middle one of the layers), on the CPU."""
    with torch.enable_grad():
        layers = _layers(model, z[:1].to(model.device).requires_grad_())
    middle, held = layers[len(layers) // 2][0], []
    hook = middle.register_forward_hook(lambda _, __, output: held.append(_pooled(output)))
    samples, activations = [], []
    try:
        with torch.inference_mode():
            for start in range(0, len(z), model.batch):
                some = slice(start, start + model.batch)
                held.clear()
                made = model.sampler.generate(z[some].to(model.device), _on(model, label, some))
                samples.append(to_stored(made, model.shape.bits).cpu())
                activations.append(held[0])
    finally:
        hook.remove()
    return torch.cat(samples), torch.cat(activations).clone()


def _pooled(output: Tensor) -> Tensor:
    """Activations [B, C, *s] averaged to a few cells along each axis, [B, D], float32 on the CPU."""
    if output.ndim > 2:
        cells = tuple(min(_CELLS, extent) for extent in output.shape[2:])
        output = _POOLS[len(cells) - 1](output, cells)
    return output.float().flatten(1).cpu()


def _without(label: Tensor | None, classes: int) -> Callable[[Tensor], Tensor]:
    """A function of values [N, D] that subtracts their mean, and what labels predict linearly."""
    if label is None:
        return lambda values: values - values.mean(0)
    known = label if label.is_floating_point() else F.one_hot(label, classes)
    features = torch.cat([known.float(), torch.ones(len(label), 1)], 1)
    basis = torch.linalg.svd(features, full_matrices=False)
    kept = basis.U[:, 1e-4 * basis.S[0] < basis.S]
    return lambda values: values - kept @ (kept.T @ values)


def _on(model: Model, label: Tensor | None, some: slice = slice(None)) -> Tensor | None:
    return None if label is None else label[some].to(model.device)


def directions_of_samples(
    model: AutoencoderModel, samples: Tensor, values: Mapping[str, Tensor], label: Tensor | None = None
) -> Directions:
    """Directions of what is known about some samples, such as their conditions, in an autoencoder's latents.

    samples: uint8 [N, C, *S]; values: by name, numbers [N]; label: as for `encode`. Each direction is the regression
    of its value on the latents, the best predicted first, orthogonal to one another.
    """
    clean = _without(label, model.classes)
    z = clean(model.encode(samples, label).flatten(1).float().cpu())
    found = []
    for name, numbers in values.items():
        wanted = clean(torch.as_tensor(numbers).float().reshape(-1, 1))
        vector = F.normalize(torch.linalg.lstsq(z, wanted).solution.T, dim=1)[0]
        share = float(torch.corrcoef(torch.stack([z @ vector, wanted[:, 0]]))[0, 1] ** 2)
        found.append(Direction(name, vector, share, f"the condition {name}"))
    found.sort(key=lambda each: -each.explains)
    vectors, kept = orthogonalised(torch.stack([each.vector for each in found]))
    return Directions(
        Direction(found[number].name, vector, found[number].explains, found[number].of)
        for vector, number in zip(vectors, kept, strict=True)
    )
