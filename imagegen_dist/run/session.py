"""The course of a run on one rank: resume, train with hooks, finish."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

import torch

from imagegen_dist.data.counters import COUNTED
from imagegen_dist.data.stream import Item, stream
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.distributed import Stopped, World, sum_over_ranks, text_from_main
from imagegen_dist.documents import parse_json
from imagegen_dist.experiment import Experiment
from imagegen_dist.records import RunSettings
from imagegen_dist.run.checkpoints import Checkpoints
from imagegen_dist.run.context import Context, Events, Outcome, RunError, prepare
from imagegen_dist.run.evaluations import Evaluations
from imagegen_dist.run.held_out import with_held_out
from imagegen_dist.run.listening import Listening
from imagegen_dist.run.outputs import Outputs
from imagegen_dist.run.passes import choose_pass, record_smaller
from imagegen_dist.run_folder import RESULT
from imagegen_dist.training.loop import Hook, train
from imagegen_dist.training.memory import PassTooLarge
from imagegen_dist.training.prefetch import ahead
from imagegen_dist.wording import counted

_COMPILES = (
    "compiling at the first step: a minute on a GPU, several on a CPU, where --training.compile false is often better"
)


def execute(
    experiment: Experiment,
    settings: RunSettings,
    world: World,
    device: torch.device,
    events: Events,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Train the experiment to its end, or until asked to stop, resuming from the newest complete checkpoint.

    Called on every rank with equal arguments. Raises RunError if the run cannot continue, and the errors of storage and
    data.
    """
    with experiment.training.numerics.applied():
        return _Session(prepare(experiment, settings, world, device, events, clock), clock).run()


class _Session:
    """One rank's part in a run."""

    def __init__(self, run: Context, clock: Callable[[], float]) -> None:
        self._run = run
        run.trainer.smaller_pass = run.events.message
        self._outputs = Outputs(run)
        self._checkpoints = Checkpoints(run, self._outputs)
        self._evaluations = Evaluations(run, self._outputs, self._checkpoints)
        self._listening = Listening(run.world, run.device, clock)
        self._data_counters: Counter[str] = Counter()

    def run(self) -> Outcome:
        """Run from the newest checkpoint, or the beginning, to the end."""
        run = self._run
        resumed = self._checkpoints.resume()
        measured = finished = False
        if run.world.is_main:
            self._outputs.open(resumed)
        try:
            if not resumed:
                self._evaluations.sample()
                run.stopwatch.start(0)
            elif measured := self._evaluations.are_due():
                self._evaluate()
            if self._checkpoints.begun:
                self._checkpoints.save()  # from here on, the run does not need its source
            finished = run.ended and self._finished()
            if not finished:
                if run.experiment.training.compile and run.world.is_main and not run.ended:
                    run.events.message(_COMPILES)
                train(run.trainer, self._items(), self._hooks())
                for hook in self._hooks():
                    hook.run()
            complete = True
        except Stopped:
            complete = False
            self._checkpoints.save()
            self._checkpoints.announce()
            if run.world.is_main:
                self._outputs.submit_report("stopped; the same command continues it")
        except ShardError:
            self._checkpoints.save_alone()
            raise
        except PassTooLarge as error:
            if error.before_update:
                self._checkpoints.save_alone()
            record_smaller(run)
            raise
        finally:
            self._close()
        missing = self._evaluations.missing if complete else ""
        if run.world.is_main and complete and (measured or not finished):
            self._outputs.finish(missing, self._checkpoints.last())
        return Outcome(run.trainer.images, complete, missing)

    def _finished(self) -> bool:
        """True if an earlier attempt wrote the run's result with all metrics, and not only its last checkpoint."""
        run, found = self._run, ""
        if run.world.is_main and run.folder.exists(RESULT):
            result = parse_json(run.folder.read(RESULT))
            found = "" if result.get("figures_missing") else str(result.get("images"))
        return text_from_main(found, run.world, run.device) == str(run.trainer.images)

    def _close(self) -> None:
        try:
            self._checkpoints.wait()
        finally:
            self._outputs.close()

    def _hooks(self) -> list[Hook]:
        """The schedule. Checkpoints come before metrics and pictures, so that their failure costs no progress."""
        training, evaluation = self._run.experiment.training, self._run.experiment.evaluation
        return [
            Hook(training.report_every, self._report),
            Hook(training.checkpoint_every, self._checkpoints.save),
            Hook(evaluation.every, self._evaluate),
            Hook(training.sample_every, self._evaluations.sample),
            Hook(training.checkpoint_every, self._checkpoint),
            Hook(training.listen_every or training.batch_size, self._listen),
        ]

    def _report(self) -> None:
        """Write a row of logged terms; raises RunError after too many non-finite steps. On all ranks together."""
        run = self._run
        images = run.trainer.images
        row = run.trainer.means()
        if not row:
            return
        for name, optimizer in run.trainer.optimizers.items():
            row[f"optim/lr_{name}"] = optimizer.config.lr(images)
        row["train/skipped_steps"] = float(run.trainer.skipped_steps)
        row["data/epoch"] = images * run.plan.draws / run.training.index.samples
        of_data = self._data_totals()
        self._outputs.log(row | of_data | run.stopwatch.lap(images, of_data["data/bytes"]))
        longest = int(run.trainer.longest_bad_run)
        if longest >= run.experiment.training.max_bad_steps:
            raise RunError(
                f"{counted(longest, 'step')} in a row had a non-finite loss or gradient, up to {images:,} images; "
                "lower --optim.*.lr (with a GAN, or raise --objective.gamma), and start under a new --run, or go on "
                "from the last checkpoint by --fork-from"
            )

    def _evaluate(self) -> None:
        if self._evaluations.evaluate():
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Publish a checkpoint and notify the driver, on all ranks together; raises Stopped if the run was stopped."""
        self._checkpoints.save()
        self._checkpoints.announce()
        self._stop_if_requested()

    def _listen(self) -> None:
        """Raise Stopped on all ranks together if any was asked to stop, or the exception of a failed checkpoint."""
        if not (self._run.experiment.training.listen_every or self._listening.is_due() or self._run.ended):
            return
        self._checkpoints.check()
        self._outputs.report_failures()
        self._stop_if_requested()

    def _stop_if_requested(self) -> None:
        """Raise Stopped on all ranks together if any of them was asked to stop, unless the run has ended."""
        run = self._run
        requested = self._listening.check(run.events.stop_requested())
        if requested and not run.ended:
            raise Stopped

    def _items(self) -> Iterator[Item]:
        """This rank's items from the present clock on; the time waiting for them is measured."""
        run = self._run
        share = run.world.share(run.plan.microbatches)
        begin, end = run.trainer.step_index, run.experiment.training.steps
        items = stream(run.training.index, run.training.store, run.plan, share, begin, end, run.experiment.data)
        items = with_held_out(items, run.experiment, run.held_out, run.world, begin)
        for number, item in enumerate(run.stopwatch.waiting(ahead(items, run.device))):
            if number == 0:
                choose_pass(run, item)
            self._data_counters.update(item.counters)
            for damage in item.bad:
                run.events.message(f"substituted a damaged sample: {damage}")
            yield item

    def _data_totals(self) -> dict[str, float]:
        """Counters of data loading on all ranks since this attempt began."""
        counts = torch.tensor(
            [self._data_counters[name] for name in COUNTED], dtype=torch.int64, device=self._run.device
        )
        totals = sum_over_ranks(counts, self._run.world).tolist()
        return {f"data/{name}": float(total) for name, total in zip(COUNTED, totals, strict=True)}
