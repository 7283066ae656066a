"""What sweeps save, find and cost: `python benchmarks/sweep.py [--asha] [--pbt] [--overhead]`; all three by default.

ASHA: a grid over the learning rate and β of a VAE on digits, once in full, then under ASHA with the grid in several
orders. The trials are the same, bit for bit, so that ASHA's best can only be as good as the grid's: what counts are the
images that it spends. A deliberately mis-set default is one of the grid's points.

PBT: a population of GANs on digits whose learning rates begin far too low, and the same members with their first
learning rates kept. Both see as many images; several seeds.

Overhead: 8 short trainings of a GAN, from the command to the last file, by `jobs/sweep.py`, and in plain processes that
do one after another without Ray: one process beside one trial at a time, two beside two at a time.
Digits are packed and the network that figures are taken with is trained before anything is timed.

Every trial has one thread. Sweeps are run by their command line, as users run them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch

from imagegen_dist.ray.environment import set_ray_environment
from imagegen_dist.storage import Store
from imagegen_dist.sweep.plan import PLAN, read_plan
from imagegen_dist.sweep.results import best
from imagegen_dist.sweep.trial_store import REPLACED, STOPPED, Trial, TrialStore

ROOT = Path(__file__).parents[1]
NO_TIME = {"evaluation.classifier-images": 16_000, "training.sample-every": 1_000_000}
"""Settings of all parts: what is no part of a sweep is short."""

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
BETAS = (0.5, 1, 2, 4)
MISSET = {"optim.autoencoder.lr": 3e-5, "objective.beta": 4}
RUNG = 1_920
VAE = NO_TIME | {
    "training.total-images": 27 * RUNG,
    "evaluation.importance-samples": 0,
    "training.ema-half-life": 2_000,
}

FIRST_RATES = (1e-5, 5e-5)
MOST_RATE = 1e-2
MEETING = 3_200
GAN = NO_TIME | {"model": "mlp", "training.ema-half-life": 2_000}
POPULATION = GAN | {
    "model.hidden": "128,128",
    "training.total-images": 12 * MEETING,
    "evaluation.every": MEETING,
    "evaluation.samples": 500,
}

TRIALS = 8
IMAGES = 57_600
SHORT = GAN | {"model.hidden": "256,256,256", "training.total-images": IMAGES, "evaluation.every": IMAGES // 4}


def sweep(storage: Path, name: str, words: Sequence[str], changes: dict[str, Any]) -> tuple[list[Trial], float]:
    """Run a sweep by its command line, or go on with it; its trials, and the seconds from the command to its end."""
    settings = [word for path, value in changes.items() for word in (f"--{path}", str(value))]
    asked = [*words, "--name", name, "--wandb", "disabled", *settings]
    if (storage / name / PLAN).exists():
        asked = ["--resume", name]
    command = [sys.executable, "jobs/sweep.py", *asked, "--storage", str(storage)]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    print(f"{name}: {seconds:.0f} s", flush=True)
    return TrialStore.read(Store(storage) / name).trials, seconds


def spent(trials: Sequence[Trial]) -> int:
    """Images that trials have seen, each counted once."""
    return sum(trial.images - trial.born for trial in trials)


def chosen(storage: Path, name: str, trials: Sequence[Trial]) -> tuple[Trial, float]:
    """(the best trial, its figure)."""
    goals = read_plan(Store(storage) / name, name).goals
    found = best(trials, goals)
    assert found is not None
    return found, found.figures[goals[0].metric]


def values(trial: Trial) -> str:
    """Its values by short names."""
    return ", ".join(f"{path.split('.')[-1]} {value:g}" for path, value in trial.values.items())


# What ASHA saves


def asha(storage: Path, seeds: int) -> None:
    """Print the table of a grid in full and under ASHA."""
    total, metric = int(VAE["training.total-images"]), "eval/elbo"
    rates, betas = (",".join(f"{value:g}" for value in values) for values in (RATES, BETAS))
    words = ["digits-vae", "--space", f"optim.autoencoder.lr=grid:{rates}", f"objective.beta=grid:{betas}"]
    full, _ = sweep(storage, "grid", words, VAE | {"evaluation.every": total})
    first, figure = chosen(storage, "grid", full)
    misset = next(trial for trial in full if trial.values == MISSET)

    rows = [("mis-set default", 1, "", misset.images, misset.figures[metric], values(misset))]
    rows.append(("whole grid", len(full), "", spent(full), figure, values(first)))
    for seed in range(seeds):
        name = f"asha-{seed}"
        few, _ = sweep(
            storage, name, [*words, "--scheduler", "asha", "--seed", str(seed)], VAE | {"evaluation.every": RUNG}
        )
        found, reached = chosen(storage, name, few)
        stopped = sum(trial.state == STOPPED for trial in few)
        rows.append((f"ASHA, order {seed}", len(few), stopped, spent(few), reached, values(found)))

    print(f"\n{date.today()}, digits-vae, {len(RATES)} learning rates × {len(BETAS)} β, {total:,} images a trial;")
    print(f"rungs at {RUNG:,} × 1, 3, 9, 27 images; ELBO of held-out digits, nats\n")
    print("| | trials | ended early | images | of the grid's | best ELBO | behind the grid's | its values |")
    print("|---|---|---|---|---|---|---|---|")
    for label, number, stopped, images, reached, said in rows:
        cells = [label, number, stopped, f"{images:,}", f"{images / spent(full):.0%}", f"{reached:.2f}"]
        cells += [f"{(figure - reached) / abs(figure):.2%}", said]
        print(f"| {' | '.join(map(str, cells))} |")


# What a population finds


def pbt(storage: Path, seeds: int) -> None:
    """Print the table of a population and of its members with what they began with."""
    low, high = FIRST_RATES
    words = ["digits", "--space", f"optim.*.lr=loguniform:{low:g}:{MOST_RATE:g}:{low:g}:{high:g}"]
    words += ["--trials", str(TRIALS), "--metric", "frechet"]
    rows = []
    for seed in range(seeds):
        changes = POPULATION | {"training.seed": seed}
        more = ["--seed", str(seed)]
        fixed, _ = sweep(storage, f"fixed-{seed}", [*words, *more, "--scheduler", "none"], changes)
        population, _ = sweep(storage, f"pbt-{seed}", [*words, *more, "--scheduler", "pbt"], changes)
        kept, figure = chosen(storage, f"fixed-{seed}", fixed)
        found, reached = chosen(storage, f"pbt-{seed}", population)
        replaced = sum(trial.state == REPLACED for trial in population)
        rows.append((seed, spent(fixed), figure, values(kept), spent(population), reached, values(found), replaced))
        last = (found, population)

    images = POPULATION["training.total-images"]
    print(f"\n{date.today()}, digits with perceptrons, {TRIALS} members, {images:,} images each; first learning rates")
    print(f"{low:g} to {high:g}, possible ones up to {MOST_RATE:g}; Fréchet distance, less is better\n")
    print("| seed | images, fixed | best fixed member | its value | images, PBT | PBT | its last value | replaced |")
    print("|---|---|---|---|---|---|---|---|")
    for seed, images, figure, said, seen, reached, now, replaced in rows:
        cells = [seed, f"{images:,}", f"{figure:.2f}", said, f"{seen:,}", f"{reached:.2f}", now, replaced]
        print(f"| {' | '.join(map(str, cells))} |")
    found, population = last
    print(f"\nLineage of the best of seed {seeds - 1}: {lineage(found, population)}.")


def lineage(trial: Trial, trials: Sequence[Trial]) -> str:
    """Its forebears, the first one first: run, value, and the images between which it trained."""
    by_run = {each.run: each for each in trials}
    line, end = [], trial.images
    while True:
        line.append(f"{trial.run} ({values(trial)}, {trial.born:,} to {end:,} images)")
        if not trial.parent:
            return " → ".join(reversed(line))
        trial, end = by_run[trial.parent], trial.born


# What a sweep costs


def hand_seconds(storage: Path, name: str, runs: str, processes: int) -> float:
    """From the start of so many processes to the end of the last, which share a sweep's trainings."""
    command = [sys.executable, "-m", "peers.one_by_one", (Store(storage) / name).url, runs]
    shares = [map(str, range(first, TRIALS, processes)) for first in range(processes)]
    began = time.monotonic()
    started = [subprocess.Popen([*command, *share], cwd=ROOT / "benchmarks") for share in shares]
    if max(process.wait() for process in started):
        raise SystemExit("a training by hand failed")
    return time.monotonic() - began


def overhead(storage: Path, rounds: int, sides: Sequence[int]) -> None:
    """Print the table of trials under a sweep and by hand, so many at a time on both sides."""
    set_ray_environment()  # what it says of memory helps the trainings by hand as well
    words = ["digits", "--space", "optim.*.lr=loguniform:1e-4:2e-3", "--scheduler", "none", "--trials"]
    sweep(storage, "prepared", [*words, "1"], SHORT | {"training.total-images": 64})

    table: list[tuple[str, list[float], list[float], list[float]]] = []
    for at_once in sides:
        ours, hand, inside = [], [], []
        for number in range(rounds):
            name, runs = f"overhead-{at_once}-{number}", f"{storage}/hand-{at_once}-{number}"
            for before in (storage / name, Path(runs)):
                shutil.rmtree(before, ignore_errors=True)
            trials, seconds = sweep(storage, name, [*words, str(TRIALS), "--max-concurrent", str(at_once)], SHORT)
            ours.append(seconds)
            inside.append(seconds - sum(trial.seconds for trial in trials) / at_once)
            hand.append(hand_seconds(storage, name, runs, at_once))
            print(
                f"{at_once} at a time, round {number + 1}: sweep {seconds:.1f} s, by hand {hand[-1]:.1f} s", flush=True
            )
            check_equal(trials, runs)
        table.append((f"{at_once} at a time", ours, hand, inside))

    images = TRIALS * IMAGES
    print(f"\n{date.today()}, {TRIALS} trainings of digits with perceptrons, {IMAGES:,} images and 4 evaluations each,")
    print(f"one thread, torch {torch.__version__}, Ray {ray.__version__}; medians of {rounds} rounds in turn\n")
    heads = ["", "sweep, s", "by hand, s", "sweep, images/s", "by hand, images/s", "ratio", "outside trials, s"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for label, ours, hand, inside in table:
        ratio = median(h / o for h, o in zip(hand, ours, strict=True))
        cells = [f"{median(ours):.1f}", f"{median(hand):.1f}", f"{images / median(ours):,.0f}"]
        cells += [f"{images / median(hand):,.0f}", f"{ratio:.3f}", f"{median(inside):.1f}"]
        print(f"| {label} | {' | '.join(cells)} |")


def check_equal(trials: Sequence[Trial], runs: str) -> None:
    """Stop where a trial and the same training by hand have come to different figures."""
    for trial in trials:
        alone = json.loads((Store(runs) / trial.run).read("result.json"))
        if alone["frechet"] != trial.figures["eval/frechet"]:
            raise SystemExit(f"{trial.run}: {trial.figures} in the sweep, {alone['frechet']} by hand")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asha", action="store_true")
    parser.add_argument("--pbt", action="store_true")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--seeds", type=int, default=2, help="orders of ASHA's grid, populations")
    parser.add_argument("--rounds", type=int, default=1, help="of the overhead")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2], help="trainings at a time, of the overhead")
    parser.add_argument("--storage", type=Path, help="keeps the sweeps, and goes on with those that it has")
    options = parser.parse_args()
    everything = not (options.asha or options.pbt or options.overhead)
    with tempfile.TemporaryDirectory() as temporary:
        kept = (options.storage or Path(temporary)).resolve()
        if options.asha or everything:
            asha(kept, options.seeds)
        if options.pbt or everything:
            pbt(kept, options.seeds)
        if options.overhead or everything:
            overhead(kept / "overhead", options.rounds, options.at_once)


if __name__ == "__main__":
    main()
