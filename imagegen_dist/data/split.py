"""Which records go to training and which are held out: a pure function of their bytes and their labels."""

import re

import numpy as np

from imagegen_dist.data.contents import Copies
from imagegen_dist.data.order import IntArray, keyed_permutation

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TOLERANCE = 1e-6  # of shares that are typed as decimals
_MIX = 0  # key of the order of a source that mixes
_GOLDEN = 0.6180339887498949


def parse_shares(text: str) -> dict[str, float]:
    """Share by name in `train:0.95,val:0.05`; {} in "". Raises ValueError, one line without the flag's name."""
    shares: dict[str, float] = {}
    for word in text.split(",") if text else []:
        name, colon, number = word.strip().partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise ValueError("give names and shares as train:0.95,val:0.05; letters, digits, '-' and '_' make a name")
        if name in shares:
            raise ValueError(f"{name} comes twice")
        try:
            shares[name] = float(number)
        except ValueError:
            raise ValueError(f"the share of {name} is {number!r}; a number above 0 is needed") from None
        if not 0 < shares[name] <= 1:
            raise ValueError(f"the share of {name} is {number}; it must lie above 0 and at most at 1")
    if shares and abs(sum(shares.values()) - 1) > _TOLERANCE:
        raise ValueError(f"the shares sum to {sum(shares.values()):.6g}; they must sum to 1")
    return shares


def mixed_rows(count: int) -> IntArray:
    """All records in an order that mixes the classes and depends on their number alone."""
    return keyed_permutation(count, 0, _MIX)


def split_rows(rows: IntArray, shares: list[float], labels: IntArray | None, copies: Copies) -> list[IntArray]:
    """The records of each share, in the order of `rows`; every one is in exactly one.

    rows: all numbers from 0, or some of them, in some order; labels: of each number. Copies are in one share. Every
    class is shared out alike, to one record and its copies, in the order of a hash of the bytes: a picture stays where
    it is, but for those next to a border, when others come or go.
    """
    edges = np.cumsum(shares)
    edges[-1] = 1
    where = _places(rows, labels, copies)[copies.group[rows]]
    chosen = np.minimum(np.searchsorted(edges, where, side="right"), len(shares) - 1)
    return [rows[chosen == number] for number in range(len(shares))]


def _places(rows: IntArray, labels: IntArray | None, copies: Copies) -> np.ndarray:
    """Where in [0, 1) each group of copies comes among those of its class, by their digests; others' are 0.

    Classes begin at different fractions of one record, spread evenly, so that many small ones together still give the
    share asked for.
    """
    sizes = np.bincount(copies.group[rows], minlength=copies.first.size)
    of_group = np.zeros(sizes.size, np.int64) if labels is None else labels[copies.first]
    places = np.zeros(sizes.size)
    there = np.flatnonzero(sizes)
    for number, label in enumerate(np.unique(of_group[there]).tolist()):
        groups = there[of_group[there] == label]
        before = np.cumsum(sizes[groups]) - sizes[groups]
        places[groups] = (before + (number + 0.5) * _GOLDEN % 1) / sizes[groups].sum()
    return places
