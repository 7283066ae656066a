"""What a run writes besides checkpoints: rows of metrics, pictures, W&B, result.json and the report."""

from __future__ import annotations

import json
import statistics
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from imagegen_dist import config
from imagegen_dist.background import Background
from imagegen_dist.data.modality import drawing_of
from imagegen_dist.distributed import said
from imagegen_dist.drawing.views import Drawing
from imagegen_dist.lineage.record import described
from imagegen_dist.metric_table import EVALUATION
from imagegen_dist.metrics.chance import chance_warnings
from imagegen_dist.metrics.sinks import BackgroundSink, JSONLSink, PictureSink, Sink, read_rows
from imagegen_dist.metrics.wandb import WandbSink
from imagegen_dist.records import (
    RunStatus,
    Shown,
    by_group,
    describe_data,
    git_commit,
    last_values,
    latest_picture,
    write_report,
)
from imagegen_dist.run.context import Context, device_name
from imagegen_dist.run_folder import METRICS, REPORT, RESULT
from imagegen_dist.training.checkpoint import Checkpoint
from imagegen_dist.versions import versions


class Outputs:
    """Writes on rank 0 what the run's directory and W&B show; on other ranks it has no sinks."""

    def __init__(self, run: Context) -> None:
        self._run = run
        self._sinks: list[Sink] = []
        self._wandb: BackgroundSink[WandbSink] | None = None
        self._reports = Background(self._report_failed)

    def open(self, resumed: bool) -> None:
        """Open the sinks; a resumed run keeps its rows up to the present clock."""
        run = self._run
        self._sinks = [
            JSONLSink(run.folder, resume_images=run.trainer.images if resumed else None),
            PictureSink(run.folder),
        ]
        if run.settings.wandb_mode != "disabled":
            self._wandb = BackgroundSink(self._open_wandb, run.events.message)
            self._sinks.append(self._wandb)

    def log(self, values: dict[str, float]) -> None:
        """Write one row of metrics; ignored on other ranks than 0."""
        if self._run.world.is_main:
            row = {"images": float(self._run.trainer.images), **values}
            for sink in self._sinks:
                sink.log(row)
            self._run.events.row(row)

    def picture(self, name: str, samples: np.ndarray, columns: int, captions: Sequence[str] = ()) -> None:
        """Write samples, uint8 [N, C, *S], as a picture."""
        self._write_picture(name, *self._drawing.preview(samples, columns, captions=captions))

    def further_pictures(self, samples: np.ndarray) -> None:
        """Write other views of generated samples, uint8 [N, C, *S]: of clips a strip, of volumes a turntable."""
        for name, (data, extension) in self._drawing.further_pictures(samples).items():
            self._write_picture(name, data, extension)

    @property
    def _drawing(self) -> Drawing:
        index = self._run.training.index
        return drawing_of(index.modality, index.space)

    def _write_picture(self, name: str, data: bytes, extension: str) -> None:
        for sink in self._sinks:
            sink.picture(name, data, extension, self._run.trainer.images)

    def flush(self) -> None:
        """Make what was written durable."""
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        """Wait for the report and close the sinks."""
        self._reports.drain()
        for sink in self._sinks:
            sink.close()

    def submit_report(self, state: str) -> None:
        """Write the report in the background, with the run's present state."""
        run = self._run
        on = device_name(run.device) + (f" × {run.world.size}" if run.world.size > 1 else "")
        status = RunStatus(run.trainer.images, run.stopwatch.seconds, state, on)
        looks = run.evaluator
        shown = Shown(looks.figure, looks.picture, looks.picture_note, looks.more_pictures, looks.column_labels)
        self._reports.submit(partial(write_report, run.settings, run.experiment, run.training.index, status, shown))

    def report_failures(self) -> None:
        """Tell the user of reports that could not be written; does not wait."""
        self._reports.report_failures()

    def finish(self, missing: str, checkpoint: Checkpoint | None) -> None:
        """Write result.json and the last report from what the run's directory holds. missing: as in Outcome."""
        run = self._run
        rows = read_rows(run.folder)
        speeds = [row["system/images_per_s"] for row in rows if "system/images_per_s" in row]
        last = last_values(rows, EVALUATION)
        figures = by_group(last) if not missing else {"figures_missing": missing}
        doubted = {} if missing or not (lines := chance_warnings(last)) else {"warnings": lines}
        evaluation = run.experiment.evaluation
        result = {
            "run": run.settings.name,
            "preset": run.settings.preset,
            **described(run.settings.lineage),
            "images": run.trainer.images,
            "seconds": round(run.stopwatch.seconds, 1),
            "images_per_s": round(statistics.median(speeds), 1) if speeds else None,
            **figures,
            **doubted,
            "evaluation": {
                "samples": evaluation.samples,
                "features": evaluation.features or "classifier",
                "searched": min(evaluation.searched, run.training.index.samples),
                "classes": run.training.index.classes,
                "label_distribution": evaluation.label_distribution,
            },
            "wandb_sync": self._wandb.sink.sync_command if self._wandb else "",
            "paths": {
                "run": run.folder.url,
                "picture": latest_picture(run.folder, run.evaluator.picture),
                **{name: latest_picture(run.folder, name) for name in self._drawing.further},
                "checkpoint": checkpoint.url if checkpoint else None,
                "metrics": f"{run.folder.url}/{METRICS}",
                "report": f"{run.folder.url}/{REPORT}",
                "wandb": str(self._wandb.sink.directory) if self._wandb and self._wandb.sink.directory else None,
            },
        }
        run.folder.write(RESULT, json.dumps(result, indent=1).encode())
        self.submit_report("without figures" if missing else "complete")
        self._reports.drain()

    def _open_wandb(self, warn: Callable[[str], None]) -> WandbSink:
        run, settings = self._run, self._run.settings
        group, values = settings.wandb_group, settings.wandb_values
        kinds = [config.kind(type(part)) for part in (run.experiment.objective, run.experiment.model)]
        return WandbSink(
            settings.wandb_project,
            settings.wandb_id,
            f"{group}/{settings.name}" if group else settings.name,
            {
                "preset": settings.preset,
                **described(settings.lineage),
                **({"values": values} if values else {}),
                **config.encode(run.experiment),
                "dataset": describe_data(run.training.index),
                "device": device_name(run.device),
                "workers": run.world.size,
                "git_commit": git_commit(),
                "versions": versions(),
            },
            Path(settings.wandb_directory),
            group=group or None,
            mode=settings.wandb_mode or None,
            job_type="train",
            tags=[settings.preset, *kinds],
            captions={run.evaluator.picture: run.evaluator.picture_note, **run.evaluator.more_pictures},
            api_key_present=settings.wandb_key,
            warn=warn,
        )

    def _report_failed(self, error: Exception) -> None:
        traceback.print_exception(error, file=sys.stderr)
        self._run.events.message(f"no {REPORT}: {said(error)}; the run continues")
