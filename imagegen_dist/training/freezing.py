"""Frozen stages of a discriminator, for transfer to few data (Mo et al. 2020, arXiv:2002.10964)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from imagegen_dist.wording import counted

_FLAG = "--freeze-d"
_DISCRIMINATOR = "discriminator"


def frozen_parameters(networks: Mapping[str, nn.Module], stages: int) -> frozenset[nn.Parameter]:
    """The parameters of the discriminator's first stages, which see the samples themselves; none for 0 stages.

    networks: those of an objective, by role. Raises ValueError if there is no discriminator, if it does not name its
    stages, or if it has fewer.
    """
    if not stages:
        return frozenset()
    if _DISCRIMINATOR not in networks:
        raise ValueError(f"{_FLAG} {stages}: the objective has no discriminator; set {_FLAG} 0")
    found = getattr(networks[_DISCRIMINATOR], "stages_from_input", None)
    if found is None:
        raise ValueError(f"{_FLAG} {stages}: this discriminator does not say what its stages are; set {_FLAG} 0")
    known = found()
    if stages > len(known):
        raise ValueError(
            f"{_FLAG} {stages}: the discriminator has {counted(len(known), 'stage')}; set {len(known)} or less"
        )
    return frozenset(weight for stage in known[:stages] for module in stage for weight in module.parameters())
