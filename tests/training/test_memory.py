"""A pass that does not fit in the middle of a run: its step is taken in smaller passes, with the same noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from imagegen_dist.distributed import World, process_group
from imagegen_dist.experiment import Experiment
from imagegen_dist.objectives.base import Batch, Draw, Terms
from imagegen_dist.objectives.gan import GAN
from imagegen_dist.records import RunSettings
from imagegen_dist.run import execute
from imagegen_dist.training.checkpoint import newest
from imagegen_dist.training.loop import Trainer
from imagegen_dist.training.memory import PassTooLarge
from imagegen_dist.training.state import weights_of
from tests.ranks import run_ranks
from tests.runs import CPU, Listener, final_tensors, noise, settings, tiny, train_here

STEP = 24
DIMS, CLASSES = (1, 28, 28), 10


class _OutOfMemory(torch.autograd.Function):
    """The identity, without memory for its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def short(loss: Callable[..., tuple[Tensor, Terms]], most: int, since: int, backward: bool) -> Callable[..., Any]:
    """A loss on a device that has room for so many samples from some images on, in either pass."""

    def short_loss(*arguments: Any) -> tuple[Tensor, Terms]:
        batch, draw = arguments[-2:]
        assert isinstance(batch, Batch)
        assert isinstance(draw, Draw)
        value, terms = loss(*arguments)
        if draw.images < since or len(batch.sample) <= most:
            return value, terms
        if not backward:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return _OutOfMemory.apply(value), terms

    return short_loss


def experiment(pass_images: int) -> Experiment:
    changed = {"objective__augment_p": 0.5, "objective__critic_steps": 2, "data__flip": True}
    return tiny(training__pass_images=pass_images, training__total_images=6 * STEP, **changed)


def trained(pass_images: int, shorten: Callable[[Trainer], None], world: World | None = None) -> Trainer:
    """Three steps. shorten: makes memory short."""
    trainer, item = noise(experiment(pass_images), "image", DIMS, CLASSES, world)
    shorten(trainer)
    for _ in range(3):
        trainer.step(item)
    return trainer


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in weights_of(trainer).items()}


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        # Adam's first steps divide small gradients by their own size, rounding included.
        assert (ours[name] - value).norm() <= 1e-4 * value.norm() + 1e-6, name


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_a_step_without_memory_is_taken_in_halves_and_others_after_it_too(phase: str, backward: bool) -> None:
    """Also in the second network's turn, when the first one's update has been taken."""
    said = list[str]()

    def shorten(trainer: Trainer) -> None:
        runner = trainer.runners[phase]
        runner._loss = short(runner._loss, most=12, since=STEP, backward=backward)
        trainer.smaller_pass = said.append

    ours, theirs = trained(24, shorten), trained(24, lambda _: None)
    assert said == ["a pass of 24 images does not fit into memory any more: passes are of 12"]
    assert (ours.pass_microbatches, ours.images) == (3, 3 * STEP)
    assert_close(weights(ours), weights(theirs))
    assert ours.means() == pytest.approx(theirs.means(), rel=1e-4, abs=1e-5)


def test_one_microbatch_that_does_not_fit_is_an_error() -> None:
    def shorten(trainer: Trainer) -> None:
        trainer.runners["generator"]._loss = short(trainer.runners["generator"]._loss, 3, STEP, backward=False)

    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        trained(24, shorten)


def two_ranks(rank: int, folder: str) -> None:
    """Rank 1 has no memory for 8 images in the first of its passes, while rank 0 waits for the averages of the last."""
    said = list[str]()

    def shorten(trainer: Trainer) -> None:
        runner = trainer.runners["generator"].module
        runner._loss = short(runner._loss, most=4, since=STEP, backward=True) if rank else runner._loss
        trainer.smaller_pass = said.append

    with process_group(World(rank, 2), f"{folder}/meeting"):
        trainer = trained(8, shorten, World(rank, 2))
    assert said == (["a pass of 8 images does not fit into memory any more: passes are of 4"] if rank else [])
    save_file(weights(trainer), f"{folder}/{rank}.safetensors")


def test_a_rank_takes_smaller_passes_by_itself_before_it_meets_the_others(tmp_path: Path) -> None:
    run_ranks(2, two_ranks, str(tmp_path))
    ours, others = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(value, others[name]) for name, value in ours.items())
    assert_close(ours, weights(trained(8, lambda _: None)))


def failing_run(rank: int, where: RunSettings, folder: str, phase: str) -> None:
    """From the fourth step on, rank 1 has no memory for 12 images in the pass that meets rank 0."""
    name = f"{phase}_loss"
    if rank:
        setattr(GAN, name, short(getattr(GAN, name), most=8, since=3 * STEP, backward=True))
    listener = Listener(rank=rank)
    try:
        with process_group(World(rank, 2), f"{folder}/meeting-{phase}"):
            execute(experiment(12), where, World(rank, 2), CPU, listener)
    except PassTooLarge as error:
        Path(folder, phase).write_text("\n".join([*listener.messages, str(error)]))
        raise


def failed(phase: str, where: RunSettings, folder: Path) -> list[str]:
    """What rank 1 said of a run on two ranks that failed in a turn of this network."""
    with pytest.raises(Exception, match="a pass of 12 images does not fit"):
        run_ranks(2, failing_run, where, str(folder), phase)
    return (folder / phase).read_text().splitlines()


def test_a_pass_that_fails_among_averages_is_smaller_once_the_run_has_begun_again(tmp_path: Path) -> None:
    where, undisturbed = (settings(tmp_path, name, tmp_path / "data") for name in ("run", "undisturbed"))
    said = failed("discriminator", where, tmp_path)
    # Nothing had been updated in this step yet: the steps before it are kept.
    assert said[-2:] == ["kept a checkpoint at 72 images", "a pass of 12 images does not fit into memory any more"]
    listener, other = Listener(), Listener()
    train_here(experiment(12), where, listener)
    assert listener.messages[0].startswith("resuming at 72 images")
    assert listener.messages[1] == "passes are of 8 images, since larger ones did not fit"
    train_here(experiment(12), undisturbed, other)
    assert not any("passes" in message for message in other.messages)
    assert_close(final_tensors(where), final_tensors(undisturbed))
    assert listener.rows[-1]["images"] == other.rows[-1]["images"] == 6 * STEP


def test_a_step_with_one_update_taken_is_no_checkpoint_and_another_pass_size_is_tried_again(tmp_path: Path) -> None:
    where = settings(tmp_path, "run", tmp_path / "data")
    said = failed("generator", where, tmp_path)
    assert not any("kept" in message for message in said)
    assert newest(where.folder, lambda why: None) is None
    listener = Listener()
    train_here(experiment(24), where, listener)
    assert not any("passes" in message for message in listener.messages)
