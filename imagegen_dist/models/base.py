"""How an architecture registers itself: its settings, and the networks that it offers for the parts of an objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from imagegen_dist.config import Extensible

Builder = TypeVar("Builder", bound=Callable[..., Any])


class ModelConfig(Extensible):
    """Settings of an architecture: a frozen dataclass, registered by `@ModelConfig.register`."""

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """The class of each network, by the name of its interface.

        Each class is constructed with (shape, classes, config, *, generator). classes is the number of classes, or 0
        for none; generator, a torch.Generator, draws the initial weights. Labels are int64 [B], class weights [B, K],
        or None without classes.

            generator       z [B, Z], labels -> samples [B, C, *S]; `z_dim`
            discriminator   samples, labels -> logits [B]; optionally `stages_from_input`, whose first ones can be
                            frozen; optionally built with `classifies`: then it has a `classifier`, or None without
                            classes, and classify=True returns also logits of all classes, [B, classes]
            encoder         samples, labels -> raw parameters of the latents; `latent_dims`; built with `parameters`
            decoder         latents, labels -> raw parameters of the likelihood; built with `outputs`
            ladder_encoder, ladder_decoder   the same for latents in levels; `group_dims`

        A network whose first stages are the ones at the highest resolution names their lists of modules in
        `aligned_at_end`: if a run begins from weights with another number of stages, those at the end correspond.
        """
        raise NotImplementedError


AUXILIARY: dict[str, Callable[..., Any]] = {}
"""What an objective can request by name in addition to the networks of the model."""


def auxiliary(name: str) -> Callable[[Builder], Builder]:
    """Decorator of a function that builds an auxiliary network for any objective that requests it by this name."""

    def register(builder: Builder) -> Builder:
        AUXILIARY[name] = builder
        return builder

    return register
