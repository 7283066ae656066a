"""The factors of variation of samples, which their records hold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.index import DatasetError


def choose_factors(names: Sequence[str], requested: Sequence[str], place: object) -> list[int]:
    """The positions of the requested factors among those of the samples in `place`; all of them by default.

    Raises DatasetError for a factor that the samples do not have.
    """
    for name in requested:
        if name not in names:
            has = f"have {', '.join(names)}" if names else "carry none"
            raise DatasetError(f"there is no factor {name!r}: the samples of {place} {has}; set --evaluation.factors")
    return [names.index(name) for name in requested or names]


def factor_table(records: Sequence[dict[str, Any]]) -> tuple[list[str], NDArray[np.int64]]:
    """(names, values [N, F]) of records {"factors": {name: whole number}}, in the order of the first record.

    Raises DatasetError for a record with other factors than the first, and for a value that is not a whole number.
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
