"""Which stored tensors a network takes over, by their names and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imagegen_dist.nn.conv import AuxiliaryClassifier, ClassEmbedding


@dataclass(frozen=True)
class Match:
    """What one network takes over.

    taken: stored tensors by the network's own names. tables: names of class tables that are left out because the
    classes differ. missing: other names of the network without a fitting tensor. of_z: names of those that are taken of
    which the columns of the class vector are not.
    """

    taken: Mapping[str, Tensor]
    tables: tuple[str, ...]
    missing: tuple[str, ...]
    of_z: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of tensors of the network."""
        return len(self.taken) + len(self.tables) + len(self.missing)


def match(network: nn.Module, stored: Mapping[str, Tensor], same_classes: bool) -> Match:
    """Match stored tensors with a network's by name and shape.

    Lists of modules that the network's `aligned_at_end` names correspond at their ends. same_classes: whether class
    tables are taken as well.
    """
    own = network.state_dict()
    renamed = _renamed(network, stored)
    tables = set() if same_classes else _class_tables(network)
    fits = {
        name: renamed[name]
        for name, tensor in own.items()
        if name not in tables and name in renamed and renamed[name].shape == tensor.shape
    }
    of_z = _columns_of_z(network, {name: renamed[name] for name in own if name in renamed and name not in fits})
    missing = tuple(name for name in own if name not in {*fits, *of_z, *tables})
    return Match({**fits, **of_z}, tuple(name for name in own if name in tables), missing, tuple(of_z))


@torch.no_grad()
def take_(network: nn.Module, taken: Mapping[str, Tensor]) -> None:
    """Copy tensors into a network."""
    own = network.state_dict()
    for name, tensor in taken.items():
        own[name].copy_(tensor)


def _columns_of_z(network: nn.Module, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a generator's layer that sees z and a class vector, if the stored one has another class vector.

    The columns of z are the stored ones, and those of a class vector are 0: the network begins as the stored one does
    without classes.
    """
    z, embed = getattr(network, "z_dim", 0), getattr(network, "embed", None)
    if not z:
        return {}
    columns = z + (embed.weight.shape[1] if embed is not None else 0)
    found = {}
    for name, tensor in stored.items():
        own = network.state_dict()[name]
        beside = own.ndim == tensor.ndim == 2 and own.shape[1] == columns and own.shape[0] == tensor.shape[0]
        if beside and tensor.shape[1] >= z:
            found[name] = torch.zeros_like(own)
            found[name][:, :z] = tensor[:, :z]
    return found


def _class_tables(network: nn.Module) -> set[str]:
    """Names of what belongs to single classes: their vectors, and a discriminator's auxiliary classifier."""
    return {
        f"{name}.{inner}" if name else inner
        for name, module in network.named_modules()
        if isinstance(module, ClassEmbedding | AuxiliaryClassifier)
        for inner, _ in module.named_parameters()
    }


def _renamed(network: nn.Module, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The stored tensors by the names that correspond to them in the network."""
    lists: Sequence[str] = getattr(network, "aligned_at_end", ())
    if not lists or not any(name.startswith(f"{lists[0]}.") for name in stored):
        return dict(stored)
    shift = _length(network.state_dict(), lists[0]) - _length(stored, lists[0])
    return {_shifted(name, shift) if name.partition(".")[0] in lists else name: stored[name] for name in stored}


def _length(names: Iterable[str], listed: str) -> int:
    """Entries of a list of modules, up to the last one that has weights."""
    return 1 + max(int(name.split(".")[1]) for name in names if name.startswith(f"{listed}."))


def _shifted(name: str, shift: int) -> str:
    listed, number, rest = name.split(".", 2)
    return f"{listed}.{int(number) + shift}.{rest}"
