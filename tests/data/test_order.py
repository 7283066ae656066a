import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagegen_dist.data.order import Order, Plan, StepByStep, default_block

UNEVEN = [5, 0, 17, 1, 40, 3, 0, 23, 11, 9]


def plan(seed=0, microbatches=4, microbatch_size=3, draws=1, lanes=8, block=2):
    return Plan(seed, microbatches, microbatch_size, draws, lanes, block)


def share(world, rank, microbatches):
    """A rank's contiguous run of the microbatches."""
    return range(rank * microbatches // world, (rank + 1) * microbatches // world)


def run(order, draws, microbatches):
    """Ids in the whole run's order, sample m of microbatch i at m·N + i."""
    return np.stack([np.concatenate([order.draw(at, i).id for at in range(draws)]) for i in microbatches], 1).ravel()


def epochs_of(counts, plan, epochs):
    """Ids of that many epochs, [epochs, n]."""
    total = sum(counts)
    draws = -(-epochs * total // (plan.microbatches * plan.microbatch_size))
    return run(Order(counts, plan), draws, range(plan.microbatches))[: epochs * total].reshape(epochs, total)


PLANS = st.builds(
    lambda n, q, **rest: Plan(microbatches=n, lanes=n * q, **rest),
    n=st.integers(1, 9),
    q=st.integers(1, 7),
    seed=st.integers(0, 2**64 - 1),
    microbatch_size=st.integers(1, 9),
    draws=st.integers(1, 2),
    block=st.integers(1, 5),
)
COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(sum)


@settings(max_examples=80, deadline=None)
@given(COUNTS, PLANS)
def test_every_epoch_has_every_sample_exactly_once(counts, plan):
    for ids in epochs_of(counts, plan, 3):
        assert np.array_equal(np.sort(ids), np.arange(sum(counts)))


@pytest.mark.parametrize("counts", [[1], [2], [7], [1000], [1] * 50, UNEVEN])
@pytest.mark.parametrize("lanes", [4, 64])
def test_tiny_datasets_come_exactly_once(counts, lanes):
    for ids in epochs_of(counts, plan(lanes=lanes), 4):
        assert np.array_equal(np.sort(ids), np.arange(sum(counts)))


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8])
def test_all_worlds_read_the_same(world):
    order = Order(UNEVEN, plan(microbatches=8, lanes=16, draws=2))
    parts = [Order(UNEVEN, order.plan).step(6, share(world, rank, 8)).id.reshape(2, -1, 3) for rank in range(world)]
    assert np.array_equal(np.concatenate(parts, 1), order.step(6, range(8)).id.reshape(2, 8, 3))


def test_a_step_is_its_draws_and_microbatches():
    order = Order(UNEVEN, plan(draws=2))
    step = order.step(5, range(1, 3)).id.reshape(2, 2, 3)
    for turn in range(2):
        for at, microbatch in enumerate((1, 2)):
            assert np.array_equal(step[turn, at], order.draw(5 * 2 + turn, microbatch).id)


def test_the_microbatch_takes_its_lanes_in_turn():
    order = Order(UNEVEN, plan(microbatches=2, lanes=6, microbatch_size=4))
    samples = order.draw(5, 1)
    assert samples.lane.tolist() == [3 + m % 3 for m in range(20, 24)]
    assert samples.position.tolist() == [m // 3 for m in range(20, 24)]
    for at in range(4):
        assert order.of_lane(int(samples.lane[at]), int(samples.position[at]), 1).id == samples.id[at]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("block", [1, 2, 4])
def test_steps_found_together_are_those_found_alone(every, block):
    chosen = plan(draws=2, block=block)
    together, alone = StepByStep(Order(UNEVEN, chosen), range(1, 3), every), Order(UNEVEN, chosen)
    for step in [*range(2, 1500, every), 7, 7 + every]:  # on through many epochs, back, and on from there
        expected = alone.step(step, range(1, 3))
        assert all(np.array_equal(found, column) for found, column in zip(together[step], expected, strict=True))


@settings(max_examples=40, deadline=None)
@given(COUNTS, PLANS, st.data())
def test_any_position_is_reached_without_history(counts, plan, data):
    whole = run(Order(counts, plan), 12, range(plan.microbatches)).reshape(-1, plan.microbatches)
    order = Order(counts, plan)
    for _ in range(8):
        at, microbatch = data.draw(st.integers(0, 11)), data.draw(st.integers(0, plan.microbatches - 1))
        b = plan.microbatch_size
        assert np.array_equal(order.draw(at, microbatch).id, whole[at * b : (at + 1) * b, microbatch])


@given(COUNTS, PLANS, st.integers(0, 10**9))
def test_lanes_differ_by_one_at_most_and_hold_everything(counts, plan, epochs):
    lengths = Order(counts, plan).lane_lengths(epochs)
    assert lengths.max() - lengths.min() <= 1
    assert lengths.sum() == epochs * sum(counts)


def test_rows_shards_and_ids_agree():
    samples = Order(UNEVEN, plan()).step(3, range(4))
    offsets = np.concatenate([[0], np.cumsum(UNEVEN)])
    assert np.array_equal(samples.id, offsets[samples.shard] + samples.row)
    assert (samples.row < np.array(UNEVEN)[samples.shard]).all()


def test_three_epochs_have_three_orders():
    first, second, third = epochs_of(UNEVEN, plan(), 3)
    for one, other in ((first, second), (second, third), (first, third)):
        assert (one == other).mean() < 0.2


def test_a_seed_fixes_the_order_and_another_changes_it():
    assert np.array_equal(epochs_of(UNEVEN, plan(seed=7), 2), epochs_of(UNEVEN, plan(seed=7), 2))
    assert (epochs_of(UNEVEN, plan(seed=7), 1) == epochs_of(UNEVEN, plan(seed=8), 1)).mean() < 0.2


def test_the_order_stays_what_it_was_in_earlier_versions():
    assert Order([4, 3, 5], Plan(1, 2, 3, 1, 4, 2)).step(1, range(2)).id.tolist() == [10, 8, 2, 4, 1, 6]


def test_a_block_holds_the_shards_it_is_given():
    """With one lane and blocks of K shards, every run of K shards' samples comes from K shards."""
    samples = Order([10] * 12, plan(microbatches=1, lanes=1, block=3)).of_lane(0, 0, 120)
    assert [len(set(block)) for block in samples.shard.reshape(4, 30).tolist()] == [3] * 4


def test_lanes_mix_shards_in_a_batch():
    samples = Order([500] * 640, plan(microbatches=1, microbatch_size=256, lanes=64, block=8)).draw(100, 0)
    assert len(np.unique(samples.shard)) > 190


def test_substitutes_come_from_the_same_block_and_are_fixed():
    order = Order([10] * 12, plan(microbatches=1, lanes=1, block=3))
    lane = order.of_lane(0, 0, 240)
    for position, block in ((140, slice(120, 150)), (185, slice(180, 210))):
        first = order.substitutes(0, position, 50)
        assert np.array_equal(first.id, order.substitutes(0, position, 50).id)
        assert set(first.shard.tolist()) == set(lane.shard[block].tolist())
        assert not np.array_equal(first.id, order.substitutes(0, position + 1, 50).id)
        assert len(np.unique(first.id)) > 10


def test_a_billion_samples_in_a_hundred_thousand_shards_are_reached_at_once():
    counts = np.full(100_000, 10_000)
    near, far = (Order(counts, plan(microbatches=64, microbatch_size=32, lanes=64, block=8)) for _ in range(2))
    started = time.perf_counter()
    near.draw(0, 5)
    reached = time.perf_counter()
    far.draw(10**9 // (64 * 32), 5)
    assert time.perf_counter() - reached < 10 * (reached - started) + 0.5
    assert time.perf_counter() - started < 5


def test_thousands_of_lanes_come_exactly_once():
    counts = np.random.default_rng(0).integers(0, 60, 700)
    ids = epochs_of(counts.tolist(), plan(microbatches=64, lanes=4096, microbatch_size=32), 2)
    assert np.array_equal(np.sort(ids, 1), np.tile(np.arange(counts.sum()), (2, 1)))


def test_lanes_that_microbatches_cannot_share_name_the_flag():
    with pytest.raises(ValueError, match=r"6 lanes cannot be shared by 4 .*--data\.lanes to a multiple of 4"):
        plan(lanes=6)


@pytest.mark.parametrize("name", ["microbatches", "microbatch_size", "draws", "lanes", "block"])
def test_nothing_in_a_plan_is_zero(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        plan(**{name: 0})


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_64_bits_is_refused(seed):
    with pytest.raises(ValueError, match="seed is"):
        plan(seed=seed)


def test_a_dataset_without_samples_is_refused():
    with pytest.raises(ValueError, match="without samples"):
        Order([0, 0], plan())


@given(COUNTS, PLANS, st.data())
def test_the_blocks_of_a_lane_follow_one_another_and_hold_its_samples(counts, plan, data):
    order = Order(counts, plan)
    lane, position = data.draw(st.integers(0, plan.lanes - 1)), data.draw(st.integers(0, 200))
    shards, end = order.block(lane, position)
    assert end > position
    assert len(shards) <= plan.block
    assert set(order.of_lane(lane, position, end - position).shard.tolist()) <= set(shards.tolist())
    same, same_end = order.block(lane, end - 1)
    assert (same.tolist(), same_end) == (shards.tolist(), end)


@settings(max_examples=60)
@given(COUNTS, st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**64 - 1), st.integers(8, 11))
def test_the_ranks_of_any_world_read_each_epoch_exactly_once(counts, each, size, seed, microbatches):
    chosen = plan(seed=seed, microbatches=microbatches, microbatch_size=size, lanes=microbatches * each)
    total = sum(counts)
    draws = -(-2 * total // (microbatches * size))
    orders = []
    for world in (1, 2, 3, 5, 8):
        of_ranks = [run(Order(counts, chosen), draws, share(world, rank, microbatches)) for rank in range(world)]
        columns = [ids.reshape(draws * size, -1) for ids in of_ranks]
        orders.append(np.concatenate(columns, 1).ravel()[: 2 * total])
    assert all(np.array_equal(orders[0], other) for other in orders[1:])
    for epoch in orders[0].reshape(2, total):
        assert np.array_equal(np.sort(epoch), np.arange(total))


@pytest.mark.parametrize(
    ("counts", "lanes", "block"),
    [
        ([1000] * 10_000, 64, 66),  # 64 · 66 · 1,000 samples are four million
        ([5000] * 10_000, 64, 14),
        ([500] * 640, 64, 11),  # a lane is no longer
        ([500] * 8, 64, 2),
        ([50_000] * 10_000, 64, 2),
        ([0, 0, 7], 4, 2),
        ([0], 4, 1),
    ],
)
def test_blocks_hold_four_million_samples_by_default(counts, lanes, block):
    assert default_block(counts, lanes) == block
