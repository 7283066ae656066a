"""What reading costs: `python benchmarks/data.py [--quick] [--rounds 3] [--folder DIR]`

256 × 256 JPEGs, 64 × 64 PNGs and 64 × 64 arrays, from local disk and from an S3 server on loopback, in the training
process and in two loader processes, beside webdataset, mosaicml-streaming and litdata, and beside what cannot be
beaten: decoding alone, reading alone. Then the time to the first batch of a dataset of 10,000 shards.

Every contender reads the same encoded bytes in an order of its own shuffling, one epoch, batches of 64. A figure is the
marginal cost of an image: a fresh process reads a long dataset, another one a dataset of its first quarter, and the
difference of the two is divided by the difference in images. So start-up (imports, loader processes, clients, the first
batch) is excluded, and every fetch, open and walk in proportion to the images is counted. CPU is user and system time
of the process and of all that it started, without the server. The cache folder is emptied before each process.

Others: `--beside` says what stands beside reading and decoding, `--against CHECKOUT` compares this state of the package
with another one, `--clients` compares clients of object storage, `--arrays` reads volumes and clips, `--clips` compares
the formats of clips, `--flat STEPS` watches memory and open files over many batches.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from peers import arrays, clients, clips, first, flat
from peers.environments import PACKAGES, environment
from peers.pictures import EXTENSIONS, SHARD_SAMPLES, write_shards
from peers.server import measure, s3_server

# Name in the tables -> (contender, decoder). PNGs are decoded by PIL alone; arrays are only read.
CONTENDERS = {
    "jpeg": {
        "imagegen_dist, simplejpeg": ("ours", "simplejpeg"),
        "webdataset, PIL": ("webdataset", "PIL"),
        "webdataset, simplejpeg": ("webdataset", "simplejpeg"),
        "mosaicml-streaming, simplejpeg": ("streaming", "simplejpeg"),
        "litdata, simplejpeg": ("litdata", "simplejpeg"),
    },
    "png": {
        "imagegen_dist, PIL": ("ours", "PIL"),
        "webdataset, PIL": ("webdataset", "PIL"),
        "mosaicml-streaming, PIL": ("streaming", "PIL"),
        "litdata, PIL": ("litdata", "PIL"),
    },
    "npy": {
        "imagegen_dist": ("ours", "numpy"),
        "webdataset, numpy": ("webdataset", "numpy"),
        "mosaicml-streaming, numpy": ("streaming", "numpy"),
        "litdata, numpy": ("litdata", "numpy"),
    },
}
TITLES = {"jpeg": "256 × 256 JPEG, quality 90", "png": "64 × 64 PNG", "npy": "64 × 64 arrays (`--format npy`)"}
BARE = {"jpeg": ("simplejpeg", "PIL"), "png": ("PIL",), "npy": ("numpy",)}
READ = "read only: pread of members"
COLUMNS = {
    "local disk, 0 loaders": ("local", 0),
    "local disk, 2 loaders": ("local", 2),
    "S3, 0 loaders": ("s3", 0),
    "S3, 2 loaders": ("s3", 2),
}
LIMITS = {
    "decode only: the package's decoder": {"limit": "decode"},
    "decode only: bare simplejpeg": {"limit": "bare", "name": "simplejpeg"},
    "decode only: bare PIL": {"limit": "bare", "name": "PIL"},
    "decode only: bare numpy": {"limit": "bare", "name": "numpy"},
    READ: {"limit": "read"},
    "read only: shards from S3, s3fs": {"limit": "fetch", "client": "s3fs get_file"},
    "read only: shards from S3, obstore": {"limit": "fetch", "client": "obstore get, stream of 1 MiB"},
}
_QUIET = {"LITDATA_DISABLE_VERSION_CHECK": "1"}
Results = dict[tuple[str, ...], list[dict[str, Any]]]


def build(kind: str, shards: int, folder: Path, pythons: dict[str, str]) -> Path:
    """A format's datasets for all contenders, in a bucket's folder; they are kept for the next time."""
    target = folder / "s3" / "data" / f"{kind}-{shards}"
    if not (target / "complete").exists():
        print(f"writing {target}", file=sys.stderr)
        shutil.rmtree(target, ignore_errors=True)
        write_shards(kind, shards, shards // 4, target)
        (target / "complete").touch()
    for name in pythons.keys() & {"streaming", "litdata"}:
        for length in ("long", "short"):
            shard_bytes = max(path.stat().st_size for path in (target / length / "wds").glob("*.tar"))
            arguments = {"name": name, "shards": str(target / length / "wds"), "shard_bytes": shard_bytes}
            if (target / length / name / "index.json").exists():
                continue
            done = measure(
                "peers.contenders", {**arguments, "target": str(target / length / name)}, _QUIET, pythons[name]
            )
            if "failed" in done:
                raise SystemExit(f"{name} could not write its format: {done['failed']}")
    return target


def find_pythons(folder: Path) -> dict[str, str]:
    """The Python of each contender; a peer whose environment cannot be made is left out, and named."""
    found = {"ours": sys.executable, "webdataset": sys.executable}
    for name in ("streaming", "litdata"):
        try:
            found[name] = environment(name, folder)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name}: no environment: {error}", file=sys.stderr)
    return found


def compare_round(
    kind: str, data: Path, pythons: dict[str, str], columns: list[str], server: dict[str, str], results: Results
) -> None:
    """One measurement of every contender in every column, one after the other."""
    for column in columns:
        source, workers = COLUMNS[column]
        base = str(data) if source == "local" else f"s3://data/{data.name}"
        for title, (name, decoder) in CONTENDERS[kind].items():
            for length in ("long", "short"):
                if name not in pythons:
                    results[kind, title, column, length].append({"failed": "its environment could not be made"})
                    continue
                url = f"{base}/{length}/{name if name in ('streaming', 'litdata') else 'wds'}"
                task = {"url": url, "kind": kind, "decoder": decoder, "workers": workers}
                cache = str(data.parents[2] / "cache")
                done = measure(
                    "peers.contenders", {"name": name, "cache": cache, **task}, {**server, **_QUIET}, pythons[name]
                )
                results[kind, title, column, length].append(done)
                shown = done.get("failed") or f"{done['images']:,} images, {done['cpu_s']:.2f} / {done['wall_s']:.2f} s"
                print(f"{kind}, {column}, {title}, {length}: {shown}", file=sys.stderr, flush=True)


def limits_round(kind: str, data: Path, server: dict[str, str], seconds: float, results: Results) -> None:
    """One measurement of every limit of a format."""
    for title, limit in LIMITS.items():
        if limit["limit"] == "bare" and limit["name"] not in BARE[kind]:
            continue
        arguments: dict[str, Any] = {"folder": str(data / "long" / "wds"), "seconds": seconds, **limit}
        if limit["limit"] == "decode":
            arguments["kind"] = kind
        elif limit["limit"] == "fetch":
            arguments |= {"bucket": "data", "target": str(data.parents[2] / "fetched")}
        results[kind, title].append(measure("peers.limits", arguments, server))


def marginal(long: list[dict[str, Any]], short: list[dict[str, Any]], unit: str) -> float | str:
    """Seconds an image between two datasets: medians over the rounds; or why there are none."""
    for done in (*long, *short):
        if "failed" in done:
            return f"not run: {done['failed']}"
    images = long[0]["images"] - short[0]["images"]
    return (median(done[unit] for done in long) - median(done[unit] for done in short)) / images


def comparison_table(kind: str, columns: list[str], results: Results) -> str:
    """Microseconds an image, CPU / wall, and how the package stands to the best peer of the same decoder."""
    cost: dict[tuple[str, str, str], float | str] = {}
    lines = [f"| CPU / wall µs an image | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for title in CONTENDERS[kind]:
        cells: list[str] = []
        for column in columns:
            pair = [results[kind, title, column, length] for length in ("long", "short")]
            found = [marginal(*pair, unit) for unit in ("cpu_s", "wall_s")]
            cost[title, column, "cpu"] = found[0]
            cells.append(
                found[0] if isinstance(found[0], str) else " / ".join(f"{1e6 * float(each):.0f}" for each in found)
            )
        lines.append(f"| {title} | {' | '.join(map(str, cells))} |")
    ours, *peers = CONTENDERS[kind]
    same = [title for title in peers if CONTENDERS[kind][title][1] == CONTENDERS[kind][ours][1]]
    cells, shares, over = [], [], []
    decode = median(done["cpu_s_image"] for done in results[kind, "decode only: the package's decoder"])
    read = median(done["cpu_s_image"] for done in results[kind, READ])
    for column in columns:
        mine = cost[ours, column, "cpu"]
        others = {title: each for title in same if isinstance(each := cost[title, column, "cpu"], float)}
        best = min(others, key=lambda title: others[title], default="")
        ok = isinstance(mine, float) and best
        cells.append(f"{others[best] / mine:.2f} ({best.split(',')[0]})" if ok else "")  # type: ignore[operator]
        shares.append(f"{decode / mine:.0%}" if isinstance(mine, float) else "")
        over.append(f"{mine / read:.2f}" if isinstance(mine, float) and COLUMNS[column][0] == "local" else "")
    lines.append(f"| best peer of the same decoder, CPU over ours | {' | '.join(cells)} |")
    if kind == "npy":
        lines.append(f"| ours over read only (CPU) | {' | '.join(over)} |")
    else:
        lines.append(f"| ours, share of decode only (CPU) | {' | '.join(shares)} |")
    return "\n".join(lines)


def limits_table(kind: str, results: Results) -> str:
    lines = ["| limit, one process | CPU / wall µs an image |", "|---|---|"]
    for title in LIMITS:
        if rounds := results.get((kind, title)):
            failed = next((done["failed"] for done in rounds if "failed" in done), None)
            units = ("cpu_s_image", "wall_s_image")
            cell = failed or " / ".join(f"{1e6 * median(done[unit] for done in rounds):.1f}" for unit in units)
            lines.append(f"| {title} | {cell} |")
    return "\n".join(lines)


def first_batch(folder: Path, shards: int, rounds: int) -> str:
    """The table of the time to the first batch, from S3 with an empty cache."""
    data = folder / "s3" / f"many-{shards}"
    if not (data / "index.json").exists():
        print(f"writing {data}", file=sys.stderr)
        first.write_dataset(shards, data)
    names = {
        "imports": "imports_s",
        "client and index": "index_s",
        "first batch": "batch_s",
        "together": "together_s",
    }
    lines = [f"| seconds, {shards:,} shards on S3 | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    with s3_server(folder / "s3") as server:
        for workers in (0, 2):
            found = []
            for _ in range(rounds):
                shutil.rmtree(folder / "cache", ignore_errors=True)
                arguments = {"url": f"s3://{data.name}", "workers": workers, "cache": str(folder / "cache")}
                found.append(measure("peers.first", arguments, server))
            failed = [done["failed"] for done in found if "failed" in done]
            cells = failed[:1] or [f"{median(done[key] for done in found):.2f}" for key in names.values()]
            lines.append(f"| {workers} loaders | {' | '.join(cells)} |")
    return "\n".join(lines)


def clients_table(folder: Path, rounds: int, object_mb: int, objects: int) -> str:
    """MB a second of CPU and of wall for every client."""
    head = f"| {objects} objects of {object_mb} MB to a file | MB a CPU second | MB a wall second | start, s |"
    lines = [head, "|---|---|---|---|"]
    found = clients.compare(folder, rounds, object_mb, objects)
    for name, done in zip(clients.CLIENTS, zip(*found, strict=True), strict=True):
        if any("failed" in each for each in done):
            lines.append(f"| {name} | not run: {next(each['failed'] for each in done if 'failed' in each)} | | |")
            continue
        rates = [f"{median(each['mb'] / each[unit] for each in done):.0f}" for unit in ("fetch_cpu_s", "fetch_wall_s")]
        lines.append(f"| {name} | {' | '.join(rates)} | {median(each['start_s'] for each in done):.2f} |")
    return "\n".join(lines)


def flat_table(folder: Path, steps: int) -> str:
    """Memory and open files over many batches, for 0 and 2 loaders, from local disk and S3."""
    data = folder / "s3" / "small"
    if not (data / "index.json").exists():
        shutil.rmtree(data, ignore_errors=True)
        flat.write_dataset(data)
    heads = ["MB per 1,000 batches", "memory, MB", "open files", "fetched, GB", "seconds"]
    lines = [f"| {steps:,} batches of {flat.BATCH} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    with s3_server(folder / "s3") as server:
        for column, (source, workers) in COLUMNS.items():
            shutil.rmtree(folder / "cache", ignore_errors=True)
            url = str(data) if source == "local" else f"s3://{data.name}"
            arguments = {"url": url, "workers": workers, "cache": str(folder / "cache"), "steps": steps}
            done = measure("peers.flat", arguments, server)
            cells = (
                [done["failed"]]
                if "failed" in done
                else [
                    f"{done['mb_per_1000']:+.3f}",
                    "{:.0f} to {:.0f}".format(*done["memory_mb"]),
                    "{} to {} (most {})".format(done["files"][0], done["files"][2], done["files"][1]),
                    f"{done['fetched_gb']:.2f}",
                    f"{done['seconds']:.0f}",
                ]
            )
            lines.append(f"| {column} | {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def compare(options: argparse.Namespace, folder: Path) -> None:
    """All rounds of the comparison and the limits, and their tables."""
    kinds = options.formats
    columns = [column for column, (_, workers) in COLUMNS.items() if not options.quick or workers == 0]
    pythons = find_pythons(folder)
    data = {kind: build(kind, options.shards, folder, pythons) for kind in kinds}
    results: Results = defaultdict(list)
    for number in range(options.rounds):
        for kind in kinds:
            with s3_server(folder / "s3") as server:
                limits_round(kind, data[kind], server, 0.5 if options.quick else 3, results)
                compare_round(kind, data[kind], pythons, columns, server, results)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    for kind in kinds:
        samples = options.shards * SHARD_SAMPLES[kind]
        print(
            f"\n### {TITLES[kind]}\n\n{samples:,} images less {samples // 4:,}, medians of {options.rounds} rounds:\n"
        )
        print(comparison_table(kind, columns, results), limits_table(kind, results), sep="\n\n", flush=True)


BESIDE_BATCHES = {"jpeg": 4, "png": 8, "npy": 64}


def beside_table(kinds: Sequence[str], shards: int, folder: Path, rounds: int) -> str:
    """CPU of the stream from disk over that of reading, and less that of reading and decoding: median, quartiles."""
    heads = ["stream", "read only", "read and decode", "stream over read only", "stream less read and decode"]
    lines = [f"| CPU µs an image, local disk, 0 loaders | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for kind in kinds:
        place = build(kind, shards, folder, {}) / "long" / "wds"
        arguments = {"folder": str(place), "kind": kind, "batches": BESIDE_BATCHES[kind], "slices": 40}
        found = [
            measure("peers.beside", {**arguments, "cache": str(folder / "cache")}, dict(_QUIET)) for _ in range(rounds)
        ]
        if failed := [done["failed"] for done in found if "failed" in done]:
            lines.append(f"| {TITLES[kind]} | {failed[0]} | | | | |")
            continue
        cells = [f"{1e6 * median(done[each] for done in found):.1f}" for each in ("stream", "read", "decode")]
        for each, form, unit in (("over_read", "{:.2f}", 1.0), ("beside", "{:.1f}", 1e6)):
            low, middle, high = (median(unit * done[each][at] for done in found) for at in range(3))
            cells.append(f"{form.format(middle)} ({form.format(low)} to {form.format(high)})")
        lines.append(f"| {TITLES[kind]} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


SLICES = 8  # of each checkout a round: how a process lies in memory decides some hundredths, so take many rounds
SLICE_BATCHES = {"jpeg": 16, "png": 24, "npy": 240}


def paired_table(kinds: Sequence[str], shards: int, folder: Path, other: Path, rounds: int) -> str:
    """CPU of this data path over that of another checkout: slices in turn, median and quartiles of the ratios."""
    lines = ["| CPU, this over the other | ratio | quartiles | other, µs an image |", "|---|---|---|---|"]
    for kind in kinds:
        data = build(kind, shards, folder, {})
        for column, place in {"local disk": "local", "S3": "s3"}.items():
            ratios, micros = list[float](), list[float]()
            for _ in range(rounds):
                with s3_server(folder / "s3") as server:
                    url = str(data / "long" / "wds")
                    if place == "s3":
                        url = f"s3://{(data / 'long' / 'wds').relative_to(folder / 's3')}"
                    paired = take_turns(url, [Path(__file__).parents[1], other], SLICE_BATCHES[kind], server)
                ratios += [ours / theirs for ours, theirs in paired]
                micros += [theirs / (SLICE_BATCHES[kind] * 64) * 1e6 for _, theirs in paired]
            low, middle, high = quantiles(ratios, n=4)
            lines.append(
                f"| {TITLES[kind]}, {column} | {middle:.3f} | {low:.3f} to {high:.3f} | {median(micros):.0f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def take_turns(url: str, checkouts: Sequence[Path], batches: int, environment: Mapping[str, str]) -> list[list[float]]:
    """CPU seconds of each checkout for a slice of batches, slice after slice, after one slice that is not counted."""
    with contextlib.ExitStack() as stack:
        processes = []
        for checkout in checkouts:
            cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="imagegen-bench-cache-"))
            process = subprocess.Popen(
                [sys.executable, "-m", "peers.paired", url, cache],
                cwd=Path(__file__).parent,
                env={**os.environ, **environment, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)

        def measure(process: subprocess.Popen[str]) -> float:
            assert process.stdin
            assert process.stdout
            process.stdin.write(f"{batches}\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        slices = []
        for number in range(SLICES + 1):
            order = range(len(processes)) if number % 2 else reversed(range(len(processes)))
            taken = {at: measure(processes[at]) for at in order}
            slices.append([taken[at] for at in range(len(processes))])
        return slices[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--shards", type=int, default=24, help="shards of the long dataset, 752 JPEGs or 1,504 others each"
    )
    parser.add_argument("--formats", default="", help="jpeg,png,npy or some of them (jpeg with --quick)")
    parser.add_argument("--folder", type=Path, help="keeps datasets and environments; else a temporary folder")
    parser.add_argument("--quick", action="store_true", help="a smoke run: JPEG, few images, one round, no loaders")
    parser.add_argument("--beside", action="store_true", help="what stands beside reading and decoding instead")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="this package beside another state of it")
    parser.add_argument("--clients", action="store_true", help="clients of object storage instead")
    parser.add_argument("--first", type=int, nargs="?", const=10_000, metavar="SHARDS", help="first batch alone")
    parser.add_argument("--arrays", action="store_true", help="volumes and clips instead")
    parser.add_argument("--clips", action="store_true", help="clips as npy and as animated WebP instead")
    parser.add_argument("--flat", type=int, nargs="?", const=20_000, metavar="STEPS", help="memory and files instead")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.shards, options.formats = 1, min(options.shards, 8), options.formats or "jpeg"
    options.formats = (options.formats or ",".join(EXTENSIONS)).split(",")
    if unknown := set(options.formats) - set(EXTENSIONS):
        parser.error(f"--formats has {', '.join(sorted(unknown))}; it is made of {', '.join(EXTENSIONS)}")
    if options.shards < 8 or options.shards % 8:
        parser.error(f"--shards is {options.shards}; it must be a multiple of 8")

    # Ended from outside, it takes its server along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="imagegen-bench-") as temporary:
        folder = Path(options.folder or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{time.strftime('%Y-%m-%d')}, python {' '.join(sys.argv)}, {os.cpu_count()} CPUs,")
        names = ("torch", "webdataset", "simplejpeg", "pillow", "s3fs", "obstore", "numpy")
        peers = [PACKAGES[name][0] for name in ("litdata", "streaming")]
        print(", ".join([*(f"{name} {version(name)}" for name in names), *peers]))
        if options.clients:
            for object_mb, objects in ((1, 100), (32, 8), (128, 3)):
                print(f"\n{clients_table(folder, options.rounds, object_mb, objects)}", flush=True)
        elif options.beside:
            print(f"\n{beside_table(options.formats, options.shards, folder, options.rounds)}")
        elif options.against:
            print(
                f"\n{paired_table(options.formats, options.shards, folder, options.against.resolve(), options.rounds)}"
            )
        elif options.arrays:
            print(f"\n{arrays.rates_table(folder, options.rounds)}")
        elif options.clips:
            print(f"\n{clips.formats_table(folder, options.rounds)}")
        elif options.flat:
            print(f"\n{flat_table(folder, options.flat)}")
        else:
            if not options.first:
                compare(options, folder)
            shards = options.first or (1000 if options.quick else 10_000)
            print(f"\n### First batch\n\n{first_batch(folder, shards, options.rounds)}")


if __name__ == "__main__":
    main()
