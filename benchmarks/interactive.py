"""How fast a model answers a person: `python -m benchmarks.interactive [--presets NAMES] [--seconds S]`

Untrained networks of each preset are exported and served as a user serves them, `imagegen serve` in a process of its
own with one thread. Beside it stands the bare loop: `model.generate` in a process of its own, at the batch sizes that
the server's clients make. Clients are WebSockets that ask for the next sample once they have the last, as a slider
does.
Times are p50 and p95 of the seconds from question to answer, in milliseconds; client and server share the machine.

--memory: instead, the resident memory and the seconds to start of a server of the run, eager and in ONNX Runtime, and
of its `--to onnx` export, which does without PyTorch; each also after one client asked for --seconds.

--browser: the exported page in headless Chromium (tests/browser installs what that needs): milliseconds a picture in
WebAssembly, and pictures a second while a slider is dragged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch
import websockets

from imagegen_dist import load
from imagegen_dist.inference.model import Model
from imagegen_dist.presets import find_preset
from imagegen_dist.serving.requests import stream_message
from tests.checkpoints import Family, write_checkpoint

ROOT = Path(__file__).parents[1]
PRESETS = ("digits", "dcgan", "r3gan-cifar10", "r3gan-ffhq64")
CLIENTS = (1, 8, 64)


@contextmanager
def server(run: str, *flags: str) -> Iterator[tuple[str, psutil.Process, float]]:
    """(address, process, seconds until it was ready) of `imagegen serve`."""
    command = [sys.executable, "-m", "imagegen_dist", "serve", run, "--port", "0", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http://(\S+:\d+)", line):
                    yield found[1], psutil.Process(process.pid), time.monotonic() - began
                    break
        finally:
            process.kill()


async def ask(address: str, message: bytes, until: float) -> list[float]:
    """The seconds of each answer to one client."""
    found = []
    async with websockets.connect(f"ws://{address}/stream", max_size=None) as socket:
        while not found or time.monotonic() < until:
            began = time.perf_counter()
            await socket.send(message)
            await socket.recv()
            found.append(time.perf_counter() - began)
    return found


async def all_clients(address: str, messages: Sequence[bytes], seconds: float) -> tuple[list[float], float]:
    """(seconds of all answers, answers a second)."""
    until = time.monotonic() + seconds
    answers = await asyncio.gather(*(ask(address, message, until) for message in messages))
    times = [each for client in answers for each in client]
    return times, len(times) / seconds


def bare(run: str, batch: int, seconds: float) -> float:
    """Samples a second of the networks alone, in one thread and in this process."""
    model = load(run)
    torch.set_num_threads(1)
    model.batch = batch
    z, label = model.latents(batch), model.labels(batch)
    model.generate(z, label)
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        model.generate(z, label)
        count += batch
    return count / (time.monotonic() - began)


def messages_of(model: Model, count: int) -> list[bytes]:
    """A message for each client."""
    label = torch.eye(model.classes)[0] if model.classes else None
    return [stream_message(number, model.latents(1, number), label) for number in range(count)]


def measured(name: str, seconds: float, browser: bool) -> list[str]:
    """The rows of one preset."""
    with tempfile.TemporaryDirectory() as folder:
        preset = find_preset(name)
        assert preset.shape is not None
        kind = Family(name, {}, preset.shape.dims, classes=preset.classes or None)
        run = write_checkpoint(Path(folder) / "run", kind)
        loops = {clients: bare(run, clients, seconds) for clients in CLIENTS}
        model, rows = load(run), []
        weights = sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 1e6
        with server(run) as (address, process, ready):
            for clients in CLIENTS:
                times, rate = asyncio.run(all_clients(address, messages_of(model, clients), seconds))
                p50, p95 = np.quantile(times, [0.5, 0.95]) * 1000
                rows.append(
                    f"| {name} | {clients} | {p50:.1f} | {p95:.1f} | {rate:,.0f} | {loops[clients]:,.0f} | "
                    f"{rate / loops[clients]:.2f} |"
                )
            memory = process.memory_info().rss / 1e6
        rows.append(f"| {name}: {weights:.0f} MB of weights, ready in {ready:.1f} s, {memory:.0f} MB | | | | | | |")
        if browser:
            rows.append(f"| {name}, {in_browser(run, Path(folder) / 'page')} | | | | | | |")
        return rows


def memory(name: str, seconds: float) -> list[str]:
    """The rows of one preset: resident memory and seconds to start, with and without PyTorch."""
    with tempfile.TemporaryDirectory() as folder:
        preset = find_preset(name)
        assert preset.shape is not None
        kind = Family(name, {}, preset.shape.dims, classes=preset.classes or None)
        run, exported = write_checkpoint(Path(folder) / "run", kind), str(Path(folder) / "exported")
        command = [sys.executable, "-m", "imagegen_dist", "export", run, exported, "--to", "onnx"]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        rows, messages = [], messages_of(load(run), 1)
        for said, place, flags in (
            ("PyTorch, eager", run, ()),
            ("ONNX Runtime, of the run", run, ("--engine", "onnxruntime")),
            ("ONNX Runtime, of the export", exported, ()),
        ):
            with server(place, *flags) as (address, process, ready):
                first, spent = process.memory_info().rss / 1e6, sum(process.cpu_times()[:2])
                times, _ = asyncio.run(all_clients(address, messages, seconds))
                then = process.memory_info().rss / 1e6
            p50 = np.quantile(times, 0.5) * 1000
            rows.append(f"| {name} | {said} | {ready:.1f} | {spent:.1f} | {first:.0f} | {then:.0f} | {p50:.1f} |")
        return rows


def in_browser(run: str, page: Path) -> str:
    """What Chromium measures of the exported page."""
    packages = ROOT / "tests" / "browser" / "node_modules"
    command = [sys.executable, "-m", "imagegen_dist", "export", run, str(page), "--to", "web", "--single-file"]
    command += ["--ort", str(packages / "onnxruntime-web" / "dist")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode:
        return f"browser: {done.stderr.strip().splitlines()[-1]}"
    drive = ["node", str(ROOT / "tests" / "browser" / "speed.mjs"), "/usr/bin/chromium", f"file://{page}/index.html"]
    found = json.loads(subprocess.run(drive, check=True, capture_output=True, text=True).stdout)
    return f"browser, {found['backend']}: {found['ms']:.1f} ms a picture, {found['fps']:.0f} pictures/s of a drag"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default=",".join(PRESETS), help="names joined by commas")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--browser", action="store_true")
    parser.add_argument("--memory", action="store_true")
    asked = parser.parse_args()
    if asked.memory:
        print("| preset | server | ready, s | of CPU, s | MB | MB, after requests | p50, ms |")
        print("|---|---|---|---|---|---|---|")
        for name in asked.presets.split(","):
            print("\n".join(memory(name, asked.seconds)), flush=True)
        return
    print("| preset | clients | p50, ms | p95, ms | samples/s | bare loop | ratio |\n|---|---|---|---|---|---|---|")
    for name in asked.presets.split(","):
        print("\n".join(measured(name, asked.seconds, asked.browser)), flush=True)


if __name__ == "__main__":
    main()
