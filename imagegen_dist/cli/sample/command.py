"""`python jobs/sample.py`: load the model, check what is asked of it, and write what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from imagegen_dist.cli.command import flags_help, run_command
from imagegen_dist.cli.device import pick_device
from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.cli.sample.options import JOB, SUMMARY, Command, Options, as_typed, parse
from imagegen_dist.cli.sample.pictures import (
    check_film,
    check_folder,
    check_grid,
    extension_of,
    most_used,
    write_film,
    write_folder,
    write_grid,
)
from imagegen_dist.cli.sample.shards import check_shards, pack_samples
from imagegen_dist.data.animation import check_encoder
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.animation import (
    TRAVERSED_SEEDS,
    check_interpolation,
    check_traversal,
    interpolation,
    traversal,
)
from imagegen_dist.inference.engines import use_engine_
from imagegen_dist.inference.folder import card_of
from imagegen_dist.inference.generated import Maker
from imagegen_dist.inference.loading import build_model, read_trained
from imagegen_dist.inference.model import AutoencoderModel, GeneratorModel
from imagegen_dist.inference.sampling_request import Asked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from its command line; the exit code, as named in errors.py."""
    interrupted = "interrupted; with --shards the same command continues"
    return run_command(
        JOB, arguments, lambda _: flags_help(Options, JOB, SUMMARY), lambda words: run(parse(words)), interrupted
    )


def run(command: Command) -> None:
    """Write what is asked for, and say what was written. Raises ValueError before anything is; TaskError."""
    options = command.options
    _check_outputs(command)
    device = pick_device(options.device)
    trained = read_trained(options.checkpoint)
    model = build_model(trained).to(device)
    model.batch = options.batch
    asked, film = (as_typed(each, model).by_number(model) for each in (command.asked, command.film))
    _check_model(options, asked, model)
    use_engine_(model, options.engine)
    if options.grid:
        print(write_grid(model, asked, options.grid, options.scale))
    if options.folder:
        with ProgressBar("sampling") as bar:
            bar.start(len(asked), 0, "sampling")
            said = write_folder(model, asked, options.folder, options.scale, bar.advance)
        print(said)
    if options.shards:
        maker = Maker(trained.url, device, options.engine, options.batch)
        print(pack_samples(model, maker, asked, options))
    if options.interpolate:
        samples = interpolation(model, film, options.frames)
        print(write_film(model, samples, film.columns, options.interpolate, options.scale, options.fps))
    if options.traverse:
        assert isinstance(model, AutoencoderModel)  # checked before
        rates = card_of(model, trained.url).figures.get("rate_of_latent")
        latents = most_used(rates, model.autoencoder.group_dims[0][0])
        samples = traversal(model, film, options.frames, latents)
        columns = min(len(film.seeds), TRAVERSED_SEEDS)
        print(write_film(model, samples, columns, options.traverse, options.scale, options.fps))


def _check_outputs(command: Command) -> None:
    """Raise ValueError for files that cannot be written as they are named, before a model is loaded."""
    options = command.options
    if options.grid:
        if extension_of(options.grid) != "png":
            raise UsageError(f"--grid {options.grid}: a grid is a .png")
        check_grid(command.asked)
    for name in ("interpolate", "traverse"):
        if url := getattr(options, name):
            try:
                check_encoder(extension_of(url))
            except ValueError as error:
                raise UsageError(f"--{name} {url}: {error}") from None
    if options.folder:
        check_folder(options.folder)
    if options.interpolate and len(set(command.film.seeds)) < 2:
        raise UsageError(
            f"--interpolate goes from seed to seed, and --seeds names {command.film.seeds[0]} alone: give two or more"
        )
    if options.shards:
        check_shards(command.asked)


def _check_model(options: Options, asked: Asked, model: GeneratorModel | AutoencoderModel) -> None:
    """Raise ValueError for what this model cannot do, before anything is written."""
    asked.check(model)
    if options.interpolate:
        check_interpolation(model)
        check_film(model, "interpolate")
    if options.traverse:
        check_traversal(model)
        check_film(model, "traverse")
