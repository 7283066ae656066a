"""The factors from which samples were made, as their records hold them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.index import DatasetError


def choose_factors(names: Sequence[str], asked: Sequence[str], place: object) -> list[int]:
    """The places of the factors asked for among those of the samples in `place`; all of them where none is asked for.

    Raises DatasetError for one that the samples do not have.
    """
    for name in asked:
        if name not in names:
            has = f"have {', '.join(names)}" if names else "carry none"
            raise DatasetError(f"there is no factor {name!r}: the samples of {place} {has}; set --evaluation.factors")
    return [names.index(name) for name in asked or names]


def factor_table(records: Sequence[dict[str, Any]]) -> tuple[list[str], NDArray[np.int64]]:
    """(names, [N, F]) of records that each hold {"factors": {name: whole number}}, in the order of the first one's.

    Raises DatasetError for a record with other factors than the first, and for a value that is no whole number.
    """
    names = list(records[0]["factors"])
    for number, record in enumerate(records):
        factors = record["factors"]
        if set(factors) != set(names):
            told = ", ".join(sorted(factors)) or "none"
            raise DatasetError(f"sample {number} has the factors {told}; the first one has {', '.join(sorted(names))}")
        for name, value in factors.items():
            if not isinstance(value, int):
                raise DatasetError(
                    f"sample {number} has {name} {value!r}; a factor is the number of its value, 0, 1, ..."
                )
    return names, np.array([[record["factors"][name] for name in names] for record in records], dtype=np.int64)
