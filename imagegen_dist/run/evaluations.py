"""Evaluation and pictures during a run: what is computed when, and how failures are handled."""

from __future__ import annotations

import json
import sys
import traceback

from imagegen_dist.distributed import RankError, Stopped, said, text_from_main
from imagegen_dist.evaluation.checks import remarks
from imagegen_dist.evaluation.copying import PICTURE_OF_COPIES
from imagegen_dist.metric_table import EVALUATION, describe
from imagegen_dist.metrics.chance import chance_warnings
from imagegen_dist.metrics.copying import NOT_COPYING, reading
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.run.checkpoints import Checkpoints
from imagegen_dist.run.context import Context
from imagegen_dist.run.outputs import Outputs
from imagegen_dist.run_folder import REPORT
from imagegen_dist.training.loop import crossed

_EVALUATING = "evaluating.json"
"""Present in the run's directory during an evaluation: images seen, and how often the evaluation has begun."""

_DEADLY = 2  # deaths within one evaluation, after which it is skipped: a driver gives up after three without progress


class Evaluations:
    """Evaluates a run's averaged networks; a failure costs metrics, not the run.

    missing: why the last evaluation has no metrics; empty if it has.
    """

    def __init__(self, run: Context, outputs: Outputs, checkpoints: Checkpoints) -> None:
        self._run = run
        self._outputs = outputs
        self._checkpoints = checkpoints
        self._evaluated_at: int | None = None
        self._sampled_at: int | None = None
        self._metric: float | None = None
        self.missing = ""
        self._warned: set[str] = set()

    def are_due(self) -> bool:
        """True if the run ended at its newest checkpoint during the evaluation that follows it; equal on all ranks."""
        run = self._run
        images, due = run.trainer.images, ""
        before = images - run.experiment.training.batching.batch_size
        if run.world.is_main and crossed(run.experiment.evaluation.every, before, images):
            rows = read_rows(run.folder)
            taken = any(row["images"] == images and any(name.startswith(EVALUATION) for name in row) for row in rows)
            due = "due" if rows and not taken else ""
        return text_from_main(due, run.world, run.device) == "due"

    def evaluate(self) -> bool:
        """Evaluate on all ranks together, after a checkpoint, to which the metric is added; True if it is the best.

        If an evaluation fails, the user is told, and the run continues.
        """
        run = self._run
        if self._evaluated_at == run.trainer.images or not run.experiment.evaluation.samples:
            return False
        self._checkpoints.save()
        with run.stopwatch.paused():
            began = run.stopwatch.seconds
            try:
                figures = self._all_figures()
            except Stopped:
                self._forget_beginning()
                raise
            self._forget_beginning()
            if figures:
                named = {f"{EVALUATION}{name}": value for name, value in figures.items()}
                self._outputs.log({**named, "system/evaluation_s": run.stopwatch.seconds - began})
            if self._metric is not None:
                self._checkpoints.score(self._metric)
        if self._metric is None or not self._metric < self._checkpoints.best:
            return False
        self._checkpoints.best = self._metric
        return True

    def sample(self) -> None:
        """Write the evaluator's pictures, on rank 0 while all ranks wait."""
        run = self._run
        if self._sampled_at == run.trainer.images:
            return
        with run.stopwatch.paused():
            self._sampled_at = run.trainer.images
            run.on_main("no pictures", self._write_pictures)

    def _all_figures(self) -> dict[str, float]:
        """Metrics of the averaged networks, and at the end of the run also those of copying."""
        run, name = self._run, self._run.evaluator.figure
        deaths = self._deaths_within()
        figures = self._figures() if deaths < _DEADLY else self._skip(deaths)
        self._evaluated_at = run.trainer.images
        self._metric = figures.get(name)
        if self._metric is not None and describe(EVALUATION + name).better == "higher":
            self._metric = -self._metric
        for line in chance_warnings(figures) if run.world.is_main else ():
            if line not in self._warned:
                run.events.message(line)
                self._warned.add(line)
        if run.ended:
            for line in remarks(figures) if run.world.is_main else ():
                run.events.message(line)
            if deaths < _DEADLY:
                figures |= run.on_main("no search for copies", self._look_for_copies) or {}
        return figures

    def _figures(self) -> dict[str, float]:
        """The evaluator's metrics, on all ranks together; empty, with a message, if they cannot be computed."""
        run = self._run
        failures = RankError if run.world.size > 1 else Exception
        try:
            figures = run.evaluator.figures()
        except Stopped:
            raise
        except failures as error:
            self.missing = f"no figures at {run.trainer.images:,} images: {said(error)}"
            traceback.print_exception(error, file=sys.stderr)
            if run.world.is_main:
                run.events.message(f"{self.missing}; a checkpoint was written before, and the run continues")
            return {}
        self.missing = ""
        return figures

    def _deaths_within(self) -> int:
        """How many processes have died during this evaluation, equal on all ranks; noted before it begins.

        The checkpoint before it is complete by then, so that none of them has cost training.
        """
        run, deaths = self._run, 0
        if run.world.is_main:
            self._checkpoints.wait()
            if run.folder.exists(_EVALUATING):
                noted = json.loads(run.folder.read(_EVALUATING))
                deaths = int(noted["begun"]) if noted["images"] == run.trainer.images else 0
            run.folder.write(_EVALUATING, json.dumps({"images": run.trainer.images, "begun": deaths + 1}).encode())
        return int(text_from_main(str(deaths), run.world, run.device))

    def _forget_beginning(self) -> None:
        """Remove the note of an evaluation that has ended or was stopped on request."""
        if self._run.world.is_main:
            self._run.folder.remove(_EVALUATING)

    def _skip(self, deaths: int) -> dict[str, float]:
        """No metrics: the evaluation has ended too many processes. The next start of the run tries it again."""
        run = self._run
        died = f"{deaths} processes in a row died within the evaluation"
        self.missing = f"no figures at {run.trainer.images:,} images: {died}"
        if run.world.is_main:
            run.events.message(
                f"{self.missing}, perhaps for lack of memory (lower --evaluation.samples or --evaluation.searched); "
                "the run continues"
            )
        return {}

    def _write_pictures(self) -> None:
        for name, (samples, columns) in self._run.evaluator.pictures().items():
            self._outputs.picture(name, samples, columns)
            if name == self._run.evaluator.generated_picture:
                self._outputs.further_pictures(samples[:columns])

    def _look_for_copies(self) -> dict[str, float]:
        """Whether the trained model copies its training samples: metrics, and a picture; on rank 0."""
        run = self._run
        found = run.evaluator.copies()
        if found is None:
            return {}
        self._outputs.picture(PICTURE_OF_COPIES, found.samples, found.columns, found.captions)
        if (told := reading(found.figures)) not in ("", NOT_COPYING):
            run.events.message(f"the trained model's samples: {told}; see their neighbours in {REPORT}")
        return found.figures
