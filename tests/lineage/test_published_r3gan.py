"""Published R3GAN networks: a stand-in with their parameters' names, written from the paper, computes what ours do."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from imagegen_dist.errors import UsageError
from imagegen_dist.lineage.matching import match, take_
from imagegen_dist.lineage.source import Source, configuration, read_source
from imagegen_dist.models.r3gan import Discriminator, Generator, R3GANConfig
from imagegen_dist.objectives.base import Batch, Draw
from imagegen_dist.objectives.gan import GAN, GANConfig
from imagegen_dist.schedule import constant
from imagegen_dist.shape import SampleShape
from imagegen_dist.training.state import below

WIDTHS, CLASSES, Z, EMBED, GROUP = (16, 16, 8), 5, 6, 4, 16


def enlarge(x: Tensor) -> Tensor:
    """Twice the extent by [1, 3, 3, 1], zeros beyond the edges: each output is 3/4 of its pixel and 1/4 of the next."""
    for axis in (2, 3):
        x = x.transpose(axis, 3)
        before, after = F.pad(x, (1, 0))[..., :-1], F.pad(x, (0, 1))[..., 1:]
        x = torch.stack([(3 * x + before) / 4, (3 * x + after) / 4], dim=-1).flatten(3)
        x = x.transpose(axis, 3)
    return x


def reduce(x: Tensor) -> Tensor:
    """Half the extent by [1, 3, 3, 1] / 8, zeros beyond the edges."""
    for axis in (2, 3):
        x = F.pad(x.transpose(axis, 3), (1, 1))
        x = (x[..., 0:-2:2] + 3 * x[..., 1:-1:2] + 3 * x[..., 2::2] + F.pad(x, (0, 1))[..., 3::2]) / 8
        x = x.transpose(axis, 3)
    return x


class Layer(nn.Module):
    """A convolution without bias, as the published modules hold it."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.Layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.Layer(x)


class Activation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.Bias[:, None, None], 0.2)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.LinearLayer1 = Layer(width, 2 * width)
        self.LinearLayer2 = Layer(2 * width, 2 * width, 3, 2 * width // GROUP)
        self.LinearLayer3 = Layer(2 * width, width)
        self.NonLinearity1, self.NonLinearity2 = Activation(2 * width), Activation(2 * width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.NonLinearity2(self.LinearLayer2(self.NonLinearity1(self.LinearLayer1(x))))
        return x + self.LinearLayer3(inner)


class Resampled(nn.Module):
    """Enlarged after a 1×1 convolution, or reduced before it; the convolution only where the width changes."""

    def __init__(self, width: int, following: int, enlarges: bool) -> None:
        super().__init__()
        self.enlarges = enlarges
        if width != following:
            self.LinearLayer = Layer(width, following)
        self.register_buffer("Resampler", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        linear = getattr(self, "LinearLayer", nn.Identity())
        return enlarge(linear(x)) if self.enlarges else linear(reduce(x))


class FromLatents(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.Basis = nn.Parameter(torch.randn(width, 4, 4))
        self.LinearLayer = nn.Linear(inputs, width, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.LinearLayer(z)[:, :, None, None] * self.Basis


class ToFeatures(nn.Module):
    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.Basis = nn.Conv2d(width, width, 4, groups=width, bias=False)
        self.LinearLayer = nn.Linear(width, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.LinearLayer(self.Basis(x).flatten(1))


class Stage(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.Layers = nn.ModuleList(layers)


class PublishedGenerator(nn.Module):
    z_dim = Z

    def __init__(self, classes: int) -> None:
        super().__init__()
        first = Stage(FromLatents(Z + (EMBED if classes else 0), WIDTHS[0]), Block(WIDTHS[0]), Block(WIDTHS[0]))
        pairs = pairwise(WIDTHS)
        rest = [
            Stage(Resampled(width, following, True), Block(following), Block(following)) for width, following in pairs
        ]
        self.MainLayers = nn.ModuleList([first, *rest])
        self.AggregationLayer = Layer(WIDTHS[-1], 3)
        if classes:
            self.EmbeddingLayer = nn.Linear(classes, EMBED, bias=False)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        if label is not None:
            x = torch.cat([x, self.EmbeddingLayer(F.one_hot(label, CLASSES).to(x.dtype))], 1)
        for stage in self.MainLayers:
            for layer in stage.Layers:  # type: ignore[union-attr]
                x = layer(x)
        return self.AggregationLayer(x)


class PublishedDiscriminator(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = WIDTHS[::-1]
        pairs = pairwise(widths)
        stages = [Stage(Block(width), Block(width), Resampled(width, following, False)) for width, following in pairs]
        last = widths[-1]
        stages.append(Stage(Block(last), Block(last), ToFeatures(last, last if classes else 1)))
        self.ExtractionLayer = Layer(3, widths[0])
        self.MainLayers = nn.ModuleList(stages)
        if classes:
            self.EmbeddingLayer = nn.Linear(classes, last, bias=False)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.ExtractionLayer(x)
        for stage in self.MainLayers:
            for layer in stage.Layers:  # type: ignore[union-attr]
                x = layer(x)
        if label is None:
            return x.squeeze(1)
        return (x * self.EmbeddingLayer(F.one_hot(label, CLASSES).to(x.dtype))).sum(1)


def published(classes: int, folder: Path) -> tuple[nn.Module, nn.Module, Source]:
    """Both stand-ins with moved weights, and what is read of the file that docs/import.md makes of them."""
    torch.manual_seed(0)
    networks = {"G_ema": PublishedGenerator(classes), "D": PublishedDiscriminator(classes)}
    stored = {}
    for name, network in networks.items():
        for weight in network.double().parameters():
            weight.data += 0.1 * torch.randn_like(weight)
        stored |= {f"{name}.Model.{key}": tensor for key, tensor in network.state_dict().items()}
    save_file(stored, folder / "r3gan.safetensors")
    return networks["G_ema"], networks["D"], read_source(str(folder / "r3gan.safetensors"))


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_outputs_and_all_gradients_equal_those_of_the_published_networks(tmp_path: Path, classes: int) -> None:
    """The relativistic loss with R1 and R2, of both phases."""
    generator, discriminator, source = published(classes, tmp_path)
    settings = R3GANConfig(widths=WIDTHS, group_channels=GROUP, z_dim=Z, embed_dim=EMBED)
    shape, random = SampleShape(3, (16, 16)), torch.Generator().manual_seed(1)
    ours = [part(shape, classes, settings, generator=random).double() for part in (Generator, Discriminator)]
    for name, network in zip(("generator", "discriminator"), ours, strict=True):
        found = match(network, below(source.tensors, name), same_classes=True)
        assert not found.missing
        assert len(below(source.tensors, name)) == found.size
        take_(network, found.taken)
    x, label = torch.randn(6, 3, 16, 16, generator=random).double(), None
    if classes:
        label = torch.randint(0, classes, (6,), generator=random)
    computed: dict[str, list[tuple[Tensor, dict[str, Tensor]]]] = {"discriminator": [], "generator": []}
    for pair in ([generator, discriminator], ours):
        for phase in GAN(*pair, GANConfig(gamma=constant(0.7))).phases():
            loss, _ = phase.loss(Batch(x, label), Draw(0, torch.Generator().manual_seed(3)))
            names, weights = zip(*phase.trains.named_parameters(), strict=True)
            gradients = torch.autograd.grad(loss, weights)
            computed[phase.name].append((loss.detach(), dict(zip(names, gradients, strict=True))))
    for name, prefix in ("discriminator", "D"), ("generator", "G_ema"):
        (theirs, their_gradients), (mine, gradients) = computed[name]
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
        stored = {f"{prefix}.{key}": gradient.contiguous() for key, gradient in their_gradients.items()}
        save_file(stored, tmp_path / "gradients.safetensors")
        mapped = below(read_source(str(tmp_path / "gradients.safetensors")).tensors, name)
        assert mapped.keys() == gradients.keys()
        for key, gradient in gradients.items():
            torch.testing.assert_close(gradient, mapped[key], rtol=1e-12, atol=1e-12)


def test_a_file_with_one_network_gives_that_one_and_does_not_say_how_to_train(tmp_path: Path) -> None:
    generator, _, _ = published(0, tmp_path)
    place = str(tmp_path / "generator.safetensors")
    save_file({f"G.{name}": tensor for name, tensor in generator.state_dict().items()}, place)
    assert {name.partition("/")[0] for name in read_source(place).tensors} == {"generator"}
    with pytest.raises(UsageError, match="does not say how to train: give a PRESET"):
        configuration(place)


def test_another_file_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="holds no published R3GAN"):
        read_source(str(tmp_path / "other.safetensors"))
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(UsageError, match="is not a safetensors file"):
        read_source(str(tmp_path / "text.safetensors"))
    with pytest.raises(UsageError, match="there is no such file"):
        read_source(str(tmp_path / "none.safetensors"))
