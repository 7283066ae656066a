"""Division of records among splits: a pure function of their bytes and labels."""

import re

import numpy as np

from imagegen_dist.data.contents import Copies
from imagegen_dist.data.order import IntArray, keyed_permutation

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TOLERANCE = 1e-6  # of the sum of shares, which are typed as decimals
_MIX = 0  # key of the order of a source that mixes
_GOLDEN = 0.6180339887498949


def parse_shares(text: str) -> dict[str, float]:
    """Parse `train:0.95,val:0.05` to shares by name, "" to {}. Raises ValueError, one line without the flag's name."""
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
    """All records in a mixed order that depends only on their number."""
    return keyed_permutation(count, 0, _MIX)


def split_rows(rows: IntArray, shares: list[float], labels: IntArray | None, copies: Copies) -> list[IntArray]:
    """Divide records among shares, keeping the order of `rows`; each record is in exactly one share.

    rows: the numbers of all or some records, in any order; labels: of all records. Copies are in one share. Every class
    is divided by the same shares, to within one record and its copies, in the order of a hash of the bytes, so that
    adding or removing pictures moves only pictures next to a border to another share.
    """
    edges = np.cumsum(shares)
    edges[-1] = 1
    where = _places(rows, labels, copies)[copies.group[rows]]
    chosen = np.minimum(np.searchsorted(edges, where, side="right"), len(shares) - 1)
    return [rows[chosen == number] for number in range(len(shares))]


def _places(rows: IntArray, labels: IntArray | None, copies: Copies) -> np.ndarray:
    """The position in [0, 1) of each group of copies among those of its class, by digest; 0 for groups not in `rows`.

    Classes begin at different fractions of one record, spread evenly, so that many small classes together have the
    requested share.
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
