"""Weights & Biases: a sink that never stops a run."""

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from PIL import Image

_START_TIMEOUT_S = 30.0
_VIDEO_FORMATS = ("gif", "mp4", "webm")


class WandbSink:
    """Rows and pictures in one W&B run, whose x-axis is `images`; a restart with the same run_id goes on in it.

    project, run_id, run_name, group: as W&B knows them; run_id follows from the run's name, so that a restart finds it.
    config: the resolved experiment, shown beside the run.
    directory: where W&B keeps its files, made if missing.
    mode: "online", "offline" or "disabled"; None and "online" are online where there is a key, else offline.
    api_key_present: whether W&B would find a key.
    warn: told what failed, once. A server that is not reached leads to an offline run, any other failure to no W&B.
    """

    def __init__(
        self,
        project: str,
        run_id: str,
        run_name: str,
        config: Mapping[str, Any],
        directory: Path,
        group: str | None = None,
        mode: str | None = None,
        *,
        api_key_present: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._run: Any = None
        self._directory: Path | None = None

        def start(mode: str) -> None:
            import wandb

            quiet = wandb.Settings(silent=True, console="off", init_timeout=_START_TIMEOUT_S)
            wandb.setup(settings=quiet)
            directory.mkdir(parents=True, exist_ok=True)
            run = wandb.init(
                project=project,
                id=run_id,
                name=run_name,
                config=dict(config),
                dir=str(directory),
                group=group,
                mode=cast(Any, mode),
                resume="allow",
                reinit="create_new",
                settings=quiet,
            )
            run.define_metric("images")
            run.define_metric("*", step_metric="images")
            self._run = run
            if mode != "disabled":
                self._directory = Path(run.dir).parent

        def start_online_else_offline() -> None:
            try:
                start("online")
            except Exception as error:
                _release()
                start("offline")
                warn(f"Weights & Biases was not reached ({_line(error)}); the run is kept offline, to be synced later")

        if mode not in (None, "online"):
            self._guard("could not start", lambda: start(mode))
        elif api_key_present:
            self._guard("could not start", start_online_else_offline)
        else:
            self._guard("could not start", lambda: start("offline"))

    @property
    def directory(self) -> Path | None:
        """Where this run's W&B files lie, for `wandb sync`; None where it did not start or is disabled."""
        return self._directory

    def log(self, row: Mapping[str, float]) -> None:
        self._attempt("could not log", lambda: self._run.log(dict(row)))

    def picture(self, name: str, data: bytes, extension: str, images: int) -> None:
        def show() -> None:
            import wandb

            if extension in _VIDEO_FORMATS:
                media: Any = wandb.Video(io.BytesIO(data), format=extension)
            else:
                with Image.open(io.BytesIO(data)) as picture:
                    media = wandb.Image(picture)
            self._run.log({f"samples/{name}": media, "images": images})

        self._attempt("could not log a picture", show)

    def flush(self) -> None:
        """W&B's own process writes and sends as it goes."""

    def close(self) -> None:
        self._attempt("could not finish", lambda: self._run.finish())
        self._run = None

    def _attempt(self, failure: str, action: Callable[[], None]) -> None:
        if self._run is not None:
            self._guard(failure, action)

    def _guard(self, failure: str, action: Callable[[], None]) -> None:
        """Call into W&B; the first failure is reported and gives W&B up."""
        try:
            action()
        except Exception as error:
            self._run = None
            _release()
            self._warn(f"Weights & Biases {failure} ({_line(error)}); the run goes on without it")


def _release() -> None:
    """End W&B's own process, which else keeps the run's id in use: a restart in this process would be refused."""
    with suppress(Exception):
        import wandb

        wandb.teardown()


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
