"""The noise of samples, against published vectors, whole numbers in plain Python, and another language."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imagegen_dist.experiment import network_generator
from imagegen_dist.noise import SampleNoise, box_muller, check_seed, keyed_generator, normals, philox, uniforms, words

# Random123, tests/kat_vectors, philox4x32 of 10 rounds: counter, key, result.
PUBLISHED = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

# Among them pairs of seeds that PyTorch's generator on the CPU cannot tell apart, and the largest index and seed.
ASKED = [(0, 0), (1, 0), (0, 1), (6464, 0), (17585, 0), (7, 0), (7 + 2**32, 0), (7, 2**32), (2**64 - 1, 2**64 - 1)]

WORD = st.integers(0, 2**32 - 1)
NUMBER = st.integers(0, 2**64 - 1)


def arrays(numbers: list[int]) -> list[np.ndarray]:
    return [np.array([number], dtype=np.uint64) for number in numbers]


def in_whole_numbers(counter: list[int], key: list[int]) -> list[int]:
    """Philox 4x32-10 as its paper writes it down (Salmon et al., SC 2011, Sec. 3.3), a 64-bit product at a time."""
    left0, right0, left1, right1 = counter[1], counter[0], counter[3], counter[2]
    for turn in range(10):
        product0, product1 = right0 * 0xD2511F53, right1 * 0xCD9E8D57
        k0, k1 = ((k + turn * w) % 2**32 for k, w in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True))
        right0, left0, right1, left1 = (
            product1 // 2**32 ^ left0 ^ k0,
            product1 % 2**32,
            product0 // 2**32 ^ left1 ^ k1,
            product0 % 2**32,
        )
    return [right0, left0, right1, left1]


@pytest.mark.parametrize(("counter", "key", "result"), PUBLISHED)
def test_the_published_vectors(counter: str, key: str, result: str) -> None:
    given_words = [[int(word, 16) for word in text.split()] for text in (counter, key)]
    assert [f"{int(word[0]):08x}" for word in philox(*map(arrays, given_words))] == result.split()
    assert [f"{word:08x}" for word in in_whole_numbers(*given_words)] == result.split()


@given(NUMBER, NUMBER, WORD, WORD)
def test_words_are_those_of_whole_numbers(seed: int, index: int, block: int, stream: int) -> None:
    found = words(*arrays([seed, index, block]), stream)
    counter = [block, stream, index % 2**32, index // 2**32]
    assert [int(word[0]) for word in found] == in_whole_numbers(counter, [seed % 2**32, seed // 2**32])


def test_box_muller_is_as_exact_as_its_textbook_form() -> None:
    edges = [0, 1, 2, 2**29, 2**30, 2**31 - 1, 2**31, 3 * 2**30, 2**32 - 2, 2**32 - 1]
    random = np.random.default_rng(0).integers(0, 2**32, 2_000, dtype=np.uint64)
    a, b = (part.ravel() for part in np.meshgrid(np.concatenate([np.array(edges, np.uint64), random[:200]]), random))
    r, angle = np.sqrt(-2 * np.log((a + 0.5) / 2**32)), 2 * np.pi * (b / 2**32)
    x, y = box_muller(a, b)
    # The textbook form's angle is off by up to 2^-51 and by what 2π is off as a float64; r is below 7.
    np.testing.assert_allclose(x, r * np.cos(angle), rtol=0, atol=7 * 2**-50)
    np.testing.assert_allclose(y, r * np.sin(angle), rtol=0, atol=7 * 2**-50)


def test_values_are_normal_and_uniform() -> None:
    rows = np.arange(400, dtype=np.uint64)
    normal, uniform = normals(rows * 0, rows, 1000), uniforms(rows * 0, rows, 1000)
    moments = [normal.mean(), normal.var(), (normal**3).mean(), (normal**4).mean()]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=5 * (96 / normal.size) ** 0.5)  # five standard errors of x^4
    for values, exact in (
        (normal, lambda at: torch.special.ndtr(torch.from_numpy(at)).numpy()),
        (uniform, lambda x: x),
    ):
        ordered = exact(np.sort(values, None))
        assert np.abs(ordered - np.arange(values.size) / values.size).max() < 2 / values.size**0.5  # Kolmogorov-Smirnov
    for along in (normal.T, normal):
        correlation = np.corrcoef(along[:200])
        assert np.abs(correlation - np.eye(200)).max() < 6 / along.shape[1] ** 0.5
    assert 0 <= uniform.min() < uniform.max() < 1
    assert np.float32(uniform.max()) < 1


def test_every_bit_of_seed_and_index_counts() -> None:
    pairs = [(1 << bit, 0) for bit in range(64)] + [(0, 1 << bit) for bit in range(64)] + [(0, 0)]
    drawn = SampleNoise(*zip(*pairs, strict=True)).normal(len(pairs), 4)
    assert len(drawn.unique(dim=0)) == len(pairs)
    assert len(drawn.unique()) == drawn.numel()


def test_noise_does_not_depend_on_what_else_is_drawn() -> None:
    whole = SampleNoise.of(3, range(50)).normal(50, 2, 5, dtype=torch.float64)
    few = SampleNoise([9, 3, 3], [0, 49, 7])
    first = few.normal(3, 2, 5, dtype=torch.float64)
    assert torch.equal(first[1:], whole[[49, 7]])
    assert torch.equal(SampleNoise.of(3, [49]).normal(1, 3)[0], whole[49].flatten()[:3].float())
    assert not torch.equal(few.normal(3, 2, 5, dtype=torch.float64), first)  # a second call continues
    large = SampleNoise.of(3, range(3)).normal(3, 70_000)
    assert torch.equal(large[:, :10], whole[:3].flatten(1).float())


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_of_64_bits_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"seed {seed}: seeds range from 0 to 2^64 - 1")):
        check_seed(seed)


def test_no_two_keys_share_a_state_of_pytorchs_generator() -> None:
    """manual_seed keeps 32 bits: 7 and 7 + 2^32 gave one state, and so did pairs of hashes below a million."""
    keys = [7, 7 + 2**32, 7 + 2**63, 2**64 - 1]
    drawn = [tuple(torch.randn(4, generator=keyed_generator(key)).tolist()) for key in keys]
    assert len(set(drawn)) == len(keys)
    assert [keyed_generator(key).initial_seed() for key in keys] == keys
    assert drawn[1] == tuple(torch.randn(4, generator=keyed_generator(keys[1])).tolist())
    weights = [torch.randn(4, generator=network_generator(seed, "generator")) for seed in (5, 5 + 2**32, 5 + 2**62)]
    assert len(torch.stack(weights).unique(dim=0)) == 3


def test_the_state_of_pytorchs_generator_is_a_mersenne_twister_of_philoxs_words() -> None:
    twister = np.random.MT19937()
    filled = np.random.Philox(key=np.array([7 + 2**40, 0], dtype=np.uint64)).random_raw(312).view(np.uint32)
    twister.state = {"bit_generator": "MT19937", "state": {"key": filled, "pos": 624}}
    ours = torch.empty(2000, dtype=torch.int64).random_(0, 2**20, generator=keyed_generator(7 + 2**40))
    assert ours.tolist() == (twister.random_raw(2000) % 2**20).tolist()


def javascript() -> str:
    """The definition as docs/sampling.md gives it."""
    page = (Path(__file__).parents[1] / "docs/sampling.md").read_text()
    return re.findall(r"```js\n(.*?)```", page, re.DOTALL)[0]


@pytest.mark.skipif(shutil.which("node") is None, reason="node.js is not installed")
def test_the_documented_javascript_repeats_the_noise_bit_for_bit() -> None:
    count = 2001
    program = f"""{javascript()}
        const bits = values => Array.from(new Uint8Array(values.buffer));
        const asked = {json.dumps([[str(seed), str(index)] for seed, index in ASKED])};
        console.log(JSON.stringify(asked.map(([s, i]) => bits(normals(BigInt(s), BigInt(i), {count})))));"""
    found = subprocess.run(["node", "-"], input=program, capture_output=True, text=True, check=True, timeout=60).stdout
    theirs = np.array(json.loads(found), np.uint8).view(np.float32)
    ours = SampleNoise(*zip(*ASKED, strict=True)).normal(len(ASKED), count).numpy()
    assert theirs.tobytes() == ours.tobytes()
