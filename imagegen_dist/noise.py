"""Random numbers that depend only on a key and are equal on all machines and in all languages.

The noise of generated samples is Philox 4x32-10 (Salmon et al., SC 2011) followed by Box-Muller, in a few lines of
integer arithmetic and of + - * / sqrt in float64, which IEEE 754 defines exactly. Library functions log and cos are
not used, since they differ between languages in the last bits. docs/sampling.md has the same definition in JavaScript.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import log, pi, prod
from operator import index
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Words = NDArray[np.uint64]
"""32-bit words in 64-bit elements, which can hold their products."""

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ROUNDS = 10
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio

_BLOCKS_AT_ONCE = 1 << 14  # in numpy: intermediate arrays fit into the CPU's cache

_MT_WORDS = 624  # words in the state of a Mersenne Twister
_MT_STATE_AT = 24  # offset of these words, 64 bits each, in the state of torch.Generator on the CPU


def check_seed(seed: int) -> int:
    """The seed as an int. Raises ValueError outside [0, 2^64)."""
    if not 0 <= (seed := index(seed)) < 2**64:
        raise ValueError(f"seed {seed}: seeds range from 0 to 2^64 - 1")
    return seed


def philox(counter: Sequence[Words], key: Sequence[Words]) -> list[Words]:
    """Four random words for each counter of four words and key of two words: Philox 4x32-10. The arrays broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        a, b = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (b >> _32) ^ c1 ^ k0, b & _LOW, (a >> _32) ^ c3 ^ k1, a & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return [c0, c1, c2, c3]


def words(seeds: Words, indexes: Words, blocks: Words, stream: int = 0) -> list[Words]:
    """The four words of each block of the noise of (seed, index). The arrays of 64-bit numbers broadcast.

    The key is the seed, lower half first; the counter is (block, stream, index's lower half, index's upper half).
    """
    halves = [half for number in (seeds, indexes) for half in (number & _LOW, number >> _32)]
    return philox([blocks, np.full(1, stream, np.uint64), *halves[2:]], halves[:2])


def box_muller(radius: Words, angle: Words) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two independent standard normal values from each pair of words: r cos(φ) and r sin(φ).

    r = sqrt(-2 ln((radius + 1/2) / 2^32)), φ = 2π angle / 2^32.
    """
    r = np.sqrt(-2.0 * _log((radius.astype(np.float64) + 0.5) * 2.0**-32))
    quadrant = (angle + np.uint64(1 << 29)) >> np.uint64(30)  # the nearest quadrant, 0 to 4
    within = angle.astype(np.float64) - quadrant * 2.0**30
    cosine, sine = _cos_sin(within * 2.0**-30 * (pi / 2))
    odd = (quadrant & np.uint64(1)).astype(bool)
    x, y = np.where(odd, sine, cosine), np.where(odd, cosine, sine)
    x_sign = 1.0 - 2.0 * (((quadrant + np.uint64(1)) >> np.uint64(1)) & np.uint64(1))
    y_sign = 1.0 - 2.0 * ((quadrant >> np.uint64(1)) & np.uint64(1))
    return r * (x_sign * x), r * (y_sign * y)


def _log(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(m 2^e) = e ln(2) + 2 artanh((m - 1) / (m + 1)), with m in [sqrt(1/2), sqrt(2)); the series to s^19."""
    m, e = np.frexp(u)  # m in [1/2, 1)
    small = m < 0.5**0.5
    m, e = np.where(small, m + m, m), e - small
    s = (m - 1.0) / (m + 1.0)
    t = s * s
    p = np.full_like(t, 1.0 / 19.0)
    for k in range(17, 0, -2):
        p = p * t + 1.0 / k
    return e * log(2) + 2.0 * s * p


def _cos_sin(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The Taylor series to x^17, for |x| <= π / 4."""
    t = x * x
    p = np.ones_like(t)
    cosine = sine = p
    for k in range(15, 0, -2):
        cosine = 1.0 - t / (k * (k + 1)) * cosine
        sine = 1.0 - t / ((k + 1) * (k + 2)) * sine
    return cosine, x * sine


def normals(seeds: Words, indexes: Words, count: int, stream: int = 0) -> NDArray[np.float64]:
    """The first `count` standard normal values of each (seed, index), [N, count].

    seeds, indexes: [N] each. Block b gives values 4b to 4b + 3: two from its first two words, two from its last two.
    """
    return _rows(seeds, indexes, count, stream, _normals_of)


def uniforms(seeds: Words, indexes: Words, count: int, stream: int = 0) -> NDArray[np.float64]:
    """The first `count` uniform values on [0, 1) of each (seed, index), [N, count]: multiples of 2^-24."""
    return _rows(seeds, indexes, count, stream, _uniforms_of)


def _rows(
    seeds: Words, indexes: Words, count: int, stream: int, of_words: Callable[[list[Words]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """of_words: four values for each block, [n, blocks, 4]."""
    blocks = -(-count // 4)
    made = np.empty((len(seeds), blocks, 4))
    rows = max(1, _BLOCKS_AT_ONCE // max(blocks, 1))
    numbers = np.arange(blocks, dtype=np.uint64)
    for start in range(0, len(seeds), rows):
        some = slice(start, start + rows)
        made[some] = of_words(words(seeds[some, None], indexes[some, None], numbers, stream))
    return made.reshape(len(seeds), 4 * blocks)[:, :count]


def _normals_of(four: list[Words]) -> NDArray[np.float64]:
    return np.stack([*box_muller(four[0], four[1]), *box_muller(four[2], four[3])], -1)


def _uniforms_of(four: list[Words]) -> NDArray[np.float64]:
    return np.stack([(word >> np.uint64(8)) * 2.0**-24 for word in four], -1)


class SampleNoise:
    """The noise of several samples; that of each sample depends only on its (seed, index).

    The k-th call uses stream k, so that its values do not depend on the number of values drawn by other calls. Tensors
    hold what `normals` and `uniforms` give: PyTorch is imported as the first are drawn.
    """

    def __init__(self, seeds: Iterable[int], indexes: Iterable[int], device: torch.device | str = "cpu") -> None:
        """seeds, indexes: one per sample, from 0 to 2^64 - 1. Raises ValueError outside this range."""
        self._seeds = np.array([check_seed(seed) for seed in seeds], dtype=np.uint64)
        self._indexes = np.array(list(indexes), dtype=np.uint64)
        assert len(self._seeds) == len(self._indexes)
        self._device = device
        self._stream = 0

    @classmethod
    def of(cls, seed: int, indexes: Sequence[int], device: torch.device | str = "cpu") -> SampleNoise:
        """The noise of samples with one seed."""
        return cls([seed] * len(indexes), indexes, device)

    def normal(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal values, by default float32. size: the number of samples, and the size of a sample's noise."""
        return self._draw(normals, size, dtype)

    def uniform(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        """Uniform values on [0, 1). Arguments as for `normal`."""
        return self._draw(uniforms, size, dtype)

    def _draw(
        self, kind: Callable[..., NDArray[np.float64]], size: tuple[int, ...], dtype: torch.dtype | None
    ) -> Tensor:
        import torch

        assert size[0] == len(self._seeds)
        values = kind(self._seeds, self._indexes, prod(size[1:]), self._stream)
        self._stream += 1
        return torch.from_numpy(values).to(dtype or torch.float32).reshape(size).to(self._device)


def keyed_generator(key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A PyTorch generator whose state depends on all 64 bits of the key, from 0 to 2^64 - 1.

    On the CPU, `manual_seed` uses 32 bits of its seed. Here, Philox fills the whole state of the Mersenne Twister.
    """
    import torch

    generator = torch.Generator(device)
    generator.manual_seed(key)
    if generator.device.type == "cpu":
        filled = np.random.Philox(key=np.array([key, 0], dtype=np.uint64)).random_raw(_MT_WORDS // 2).view(np.uint32)
        end = _MT_STATE_AT + 8 * _MT_WORDS
        with torch._C._DisableTorchDispatch():  # under fake tensors the state would have no memory to fill
            state = generator.get_state()
            state.numpy()[_MT_STATE_AT:end].view(np.uint64)[:] = filled
            generator.set_state(state)
    return generator


def even_quantiles(numbers: Iterable[int]) -> Words:
    """The quantile number / golden ratio, modulo 1, of each number, in units of 2^-64, uint64 [N].

    Those of any contiguous range of numbers are spread almost evenly.
    """
    return np.array([number % 2**64 for number in numbers], dtype=np.uint64) * _GOLDEN
