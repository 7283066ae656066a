import copy
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import Stopped, World
from imagegen_dist.objectives.base import Batch, Draw, Phase, Terms
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.loop import Augment, Batching, Hook, Trainer, crossed, keyed_draw, train
from imagegen_dist.training.optim import AdamConfig, ScheduledAdam

CPU = torch.device("cpu")


class TwoNetworks:
    """Two linear networks; each phase's loss is the mean of (its own output - the other's - label)^2."""

    def __init__(
        self, names: Sequence[str] = ("first", "second"), seen: Callable[[str, Batch, Draw], None] | None = None
    ):
        generator = torch.Generator().manual_seed(0)
        self.networks = {name: nn.Linear(3, 1).double() for name in ("first", "second")}
        for network in self.networks.values():
            nn.init.normal_(network.weight, generator=generator)
            nn.init.zeros_(network.bias)
        self.names = names
        self.seen = seen or (lambda name, batch, draw: None)

    def phases(self) -> Sequence[Phase]:
        return [Phase(name, self.networks[name], partial(self.loss, name)) for name in self.names]

    def modules(self) -> dict[str, nn.Module]:
        return self.networks

    def averaged(self) -> Sequence[str]:
        return ["first"]

    def loss(self, name: str, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        self.seen(name, batch, draw)
        other = "second" if name == "first" else "first"
        x = batch.sample.flatten(1).double()
        error = (self.networks[name](x) - self.networks[other](x)).squeeze(1) - batch.label
        return error.square().mean(), {f"loss/{name}": error.square().detach()}


class Recorder(ScheduledAdam):
    """Keeps the gradients of every turn beside taking the step."""

    def __init__(self, module: nn.Module, config: AdamConfig) -> None:
        super().__init__(module, config)
        self.turns: list[Tensor] = []

    def step(self, images_seen: int, bad: Tensor) -> None:
        self.turns.append(torch.cat([parameter.grad.flatten() for parameter in self.parameters]))
        super().step(images_seen, bad)


def make_trainer(
    microbatch_size: int = 4, objective: TwoNetworks | None = None, augment: Augment | None = None, seed: int = 1
) -> Trainer:
    objective = objective or TwoNetworks()
    adam = AdamConfig(lr=Schedule(1e-2, 1e-3, 100), beta1=0.5, beta2=constant(0.9))
    return Trainer(
        objective,
        {name: Recorder(network, adam) for name, network in objective.networks.items()},
        EMA(objective.modules(), objective.averaged(), constant(16)),
        Batching(12, microbatch_size),
        World(),
        CPU,
        seed,
        augment=augment,
    )


def item(step: int = 0, microbatch_size: int = 4, draws: int = 2) -> Item:
    """The same 12 samples a turn, however they are cut."""
    generator = torch.Generator().manual_seed(step)
    size = (draws, 12 // microbatch_size, microbatch_size)
    sample = torch.randint(0, 256, (draws, 12, 1, 3), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 3, (draws, 12), generator=generator)
    return Item(step, sample.reshape(*size, 1, 3), label.reshape(size), torch.zeros(size), {}, [])


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in trainer.objective.modules().items()
        for key, value in module.state_dict().items()
    }


def assert_same_bits(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize(("batch_size", "microbatch_size"), [(64, 48), (64, 0), (0, 1), (-8, 4), (8, 16)])
def test_a_batch_of_no_whole_number_of_microbatches_is_refused(batch_size, microbatch_size):
    with pytest.raises(ValueError, match=rf"batch of {batch_size} is not .* of {microbatch_size}; set --training"):
        Batching(batch_size, microbatch_size)


def test_more_workers_than_microbatches_are_refused_with_the_fix():
    batching = Batching(64, 32)
    batching.check_workers(2)
    with pytest.raises(ValueError, match=r"3 workers .* 2 microbatches; set --workers to at most 2, or .* at most 21"):
        batching.check_workers(3)
    with pytest.raises(ValueError, match=r"65 workers cannot share a batch of 64 images; set --workers to at most 64"):
        batching.check_workers(65)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 9))
def test_the_fix_that_a_refusal_names_is_one(microbatches, microbatch_size, extra):
    batching = Batching(microbatches * microbatch_size, microbatch_size)
    workers = microbatches + extra
    with pytest.raises(ValueError) as caught:
        batching.check_workers(workers)
    batching.check_workers(microbatches)
    if "microbatch-size" in str(caught.value):
        size = int(str(caught.value).rsplit(" ", 1)[-1])
        smaller = max(divisor for divisor in range(1, size + 1) if batching.batch_size % divisor == 0)
        Batching(batching.batch_size, smaller).check_workers(workers)


def test_more_workers_than_microbatches_build_no_trainer():
    objective = TwoNetworks()
    with pytest.raises(ValueError, match="4 workers cannot share"):
        Trainer(objective, {}, EMA({}, [], constant(0)), Batching(12, 4), World(0, 4), CPU, 0)


def test_losses_are_told_the_step_and_a_rehearsal_passes_for_the_first_one():
    """So that memory is measured with what a loss leaves out of some steps, and DDP orders its buckets by it."""
    steps: list[int] = []
    trainer = make_trainer(objective=TwoNetworks(seen=lambda name, batch, draw: steps.append(draw.step)))
    trainer.images = 12 * 7
    trainer.rehearse(item())
    assert set(steps) == {0}
    steps.clear()
    trainer.step(item())
    trainer.step(item())
    assert steps == [7] * 6 + [8] * 6


@given(st.integers(1, 20), st.integers(1, 20))
def test_shares_are_neighbours_that_cover_all_and_differ_by_one_at_most(count, size):
    shares = [World(rank, size).share(count) for rank in range(size)]
    assert [at for share in shares for at in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


KEYS = [(0, 0, "0/a", 0), (1, 0, "0/a", 0), (0, 64, "0/a", 0), (0, 0, "1/a", 0), (0, 0, "0/b", 0), (0, 0, "0/a", 1)]


def test_a_draw_is_a_function_of_its_key_alone():
    values = [keyed_draw(*key, CPU).normal(8) for key in KEYS]
    torch.manual_seed(123)
    torch.randn(10)
    for key, value in reversed(list(zip(KEYS, values, strict=True))):
        assert torch.equal(keyed_draw(*key, CPU).normal(8), value)


def test_draws_of_different_keys_differ():
    values = [tuple(keyed_draw(*key, CPU).normal(4).tolist()) for key in KEYS]
    assert len(set(values)) == len(KEYS)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw = keyed_draw(0, 0, "a", 0, CPU)
    draw.normal(3), draw.uniform(3), draw.integers(0, 5, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_have_the_distributions_that_they_name():
    draw = keyed_draw(0, 0, "a", 0, CPU)
    normal, uniform, integers = draw.normal(100_000), draw.uniform(100_000), draw.integers(2, 5, 100_000)
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert 0 <= uniform.min() < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01
    assert integers.unique().tolist() == [2, 3, 4]
    assert draw.normal(2, dtype=torch.float64).dtype is torch.float64


def test_a_microbatch_has_the_same_draw_on_any_rank():
    seen = {}

    def note(name: str, batch: Batch, draw: Draw) -> None:
        seen.setdefault(name, []).append(draw.normal(2).tolist())

    make_trainer(objective=TwoNetworks(seen=note)).step(item())
    for turn, name in enumerate(("first", "second")):
        expected = [keyed_draw(1, 0, f"{turn}/{name}", microbatch, CPU).normal(2).tolist() for microbatch in range(3)]
        assert seen[name] == expected


def test_every_turn_has_samples_of_its_own_scaled_to_minus_one_and_one():
    seen = {}
    given = item()
    given.sample[0, 0, 0, 0] = torch.tensor([0, 255, 51], dtype=torch.uint8)

    def note(name: str, batch: Batch, draw: Draw) -> None:
        seen.setdefault(name, []).append(batch)

    make_trainer(objective=TwoNetworks(seen=note)).step(given)
    torch.testing.assert_close(seen["first"][0].sample[0, 0], torch.tensor([-1.0, 1.0, -0.6]))
    for turn, name in enumerate(("first", "second")):
        samples = torch.stack([batch.sample for batch in seen[name]])
        torch.testing.assert_close(samples, given.sample[turn].float() / 127.5 - 1)
        assert torch.equal(torch.stack([batch.label for batch in seen[name]]), given.label[turn])


@pytest.mark.parametrize("microbatch_size", [1, 2, 4, 6])
def test_accumulated_microbatches_equal_one_big_batch(microbatch_size):
    whole, cut = make_trainer(12), make_trainer(microbatch_size)
    for step in range(3):
        whole.step(item(step, 12))
        cut.step(item(step, microbatch_size))
    for name in ("first", "second"):
        for ours, theirs in zip(whole.optimizers[name].turns, cut.optimizers[name].turns, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for name, loss in whole.means().items():
        assert cut_means(cut)[name] == pytest.approx(loss, rel=1e-12)


def cut_means(trainer: Trainer) -> dict[str, float]:
    """The trainer's means, without taking them away."""
    return copy.deepcopy(trainer.meter).reduce(lambda values: values)


def test_a_phase_trains_its_own_network_alone():
    trainer = make_trainer(objective=TwoNetworks(names=("first",)))
    before = weights(trainer)
    trainer.step(item(draws=1))
    after = weights(trainer)
    assert not torch.equal(after["first.weight"], before["first.weight"])
    assert torch.equal(after["second.weight"], before["second.weight"])


def test_equal_phases_share_an_optimizer_and_take_turns():
    trainer = make_trainer(objective=TwoNetworks(names=("first", "first", "second")))
    trainer.step(item(draws=3))
    assert trainer.optimizers["first"].tensors()["weight/step"] == 2
    assert trainer.optimizers["second"].tensors()["weight/step"] == 1


def test_the_clock_counts_a_steps_batch_once():
    trainer = make_trainer()
    for step in range(3):
        assert trainer.step_index == step
        trainer.step(item(step))
    assert trainer.images == 36


def nan_at(images: int, microbatch: int) -> Augment:
    """Real samples, but NaN for one microbatch of one step's second turn."""

    def spoil(x: Tensor, draw: Draw) -> Tensor:
        chosen = keyed_draw(1, images, "1/second", microbatch, CPU).generators[0].initial_seed()
        return x * torch.nan if draw.generators[0].initial_seed() == chosen else x

    return spoil


@pytest.mark.parametrize("microbatch", [0, 1, 2])
def test_a_bad_microbatch_skips_its_networks_step_and_is_counted(microbatch):
    trainer, other = make_trainer(augment=nan_at(12, microbatch)), make_trainer()
    trainer.step(item(0))
    other.step(item(0))
    before = weights(trainer)
    trainer.step(item(1))
    other.step(item(1))
    after = weights(trainer)
    assert torch.equal(after["second.weight"], before["second.weight"])
    assert torch.equal(after["first.weight"], weights(other)["first.weight"])
    assert (trainer.skipped_steps, trainer.longest_bad_run, trainer.images) == (1, 1, 24)
    assert trainer.means()["loss/second"] != trainer.means().get("loss/second")
    trainer.step(item(2))
    assert not torch.equal(weights(trainer)["second.weight"], after["second.weight"])
    assert trainer.skipped_steps == 1


def test_a_loss_that_is_not_finite_skips_the_step_although_its_gradients_are_finite():
    class Overflown(TwoNetworks):
        def loss(self, name: str, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
            loss, terms = super().loss(name, batch, draw)
            return loss + (torch.inf if draw.images == 12 else 0.0), terms

    trainer = make_trainer(objective=Overflown())
    trainer.step(item(0))
    before = weights(trainer)
    trainer.step(item(1))
    assert_same_bits(weights(trainer), before)
    assert trainer.skipped_steps == 1


def test_bad_steps_in_a_row_are_told_from_scattered_ones():
    bad = {0, 12, 36, 60, 72, 84}
    trainer = make_trainer(augment=lambda x, draw: x * torch.nan if draw.images in bad else x)
    for step in range(9):
        trainer.step(item(step))
    assert trainer.skipped_steps == 6
    assert trainer.longest_bad_run == 3


def test_averages_follow_the_clock():
    trainer = make_trainer()
    start = weights(trainer)["first.weight"]
    trainer.step(item())
    now = weights(trainer)["first.weight"]
    decay = 0.5 ** (12 / 16)
    averaged = trainer.averages.modules()["first"].weight
    torch.testing.assert_close(averaged, decay * start + (1 - decay) * now)


def test_a_step_depends_on_its_place_and_not_on_what_was_drawn_before():
    trainer, noisy = make_trainer(), make_trainer()
    trainer.step(item())
    torch.manual_seed(99)
    noisy.draw("0/first", 0).normal(5)
    noisy.step(item())
    assert_same_bits(weights(trainer), weights(noisy))


@given(st.integers(1, 50), st.integers(0, 500), st.integers(0, 100))
def test_crossed_means_that_a_multiple_lies_between(every, before, growth):
    after = before + growth
    assert crossed(every, before, after) == any(image % every == 0 for image in range(before + 1, after + 1))


def test_nothing_is_crossed_where_every_is_0():
    assert not crossed(0, 0, 100)


def test_hooks_run_when_the_clock_has_passed_their_interval_in_their_order():
    trainer = make_trainer()
    calls = []
    hooks = [
        Hook(24, lambda: calls.append(("a", trainer.images))),
        Hook(0, lambda: calls.append(("never", trainer.images))),
        Hook(18, lambda: calls.append(("b", trainer.images))),
    ]
    train(trainer, (item(step) for step in range(5)), hooks)
    assert calls == [("a", 24), ("b", 24), ("b", 36), ("a", 48), ("b", 60)]


def test_a_hook_can_stop_the_training():
    trainer = make_trainer()

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        train(trainer, (item(step) for step in range(5)), [Hook(20, stop)])
    assert trainer.images == 24
