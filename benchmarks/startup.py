"""Where each second goes between a training command and its first step, and after its last one.

    python benchmarks/startup.py [--rounds 3] [--tree CHECKOUT ...] [-- WORDS OF THE COMMAND]

Runs `python jobs/train_gan.py` for a few steps, of each tree in turn, and prints when each event of a start happened:
the median over the rounds, in seconds after the command. Beside it stands the CPU time that each kind of process had
used at the first step. On a machine that others use, CPU times are less disturbed than wall times.

The package is not changed: a `sitecustomize` module that stands before it on PYTHONPATH, also of Ray's processes,
notes the time when named functions begin and end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHORT = ["--training.total-images", "640", "--training.report-every", "320", "--training.sample-every", "640"]
SHORT += ["--training.checkpoint-every", "640", "--evaluation.samples", "0"]

TRACER = '''
import importlib.abc, importlib.machinery, json, os, sys, time

FOLDER = os.environ.get("STARTUP_TRACE")
# module: (attribute, name of the event); the time of its begin and of its end is noted
WATCHED = {
    "torch": [("", "import torch")],
    "ray": [("", "import ray")],
    "ray.train": [("", "import ray.train")],
    "imagegen_dist.cli.train_options": [("parse", "parse")],
    "imagegen_dist.cli.prepare": [("prepare", "prepare")],
    "ray._private.worker": [("init", "ray.init"), ("shutdown", "ray.shutdown")],
    "ray._private.node": [("Node.start_gcs_server", "gcs"), ("Node.start_api_server", "dashboard"),
                          ("Node.start_raylet", "raylet"), ("Node.kill_all_processes", "kill Ray")],
    "imagegen_dist.ray.driver": [("Driver._fit", "group"), ("Driver._close", "summary")],
    "torch.distributed.distributed_c10d": [("init_process_group", "process group")],
    "imagegen_dist.run.context": [("prepare", "networks and data")],
    "imagegen_dist.run.outputs": [("Outputs.open", "sinks"), ("Outputs.close", "close sinks"),
                                  ("Outputs.finish", "result and report")],
    "imagegen_dist.run.evaluations": [("Evaluations.sample", "pictures")],
    "imagegen_dist.run.session": [("execute", "run")],
    "imagegen_dist.training.loop": [("Trainer.step", "step")],
}


def cpu_of_all():
    """CPU seconds by process of this trace: {"pid command line": seconds}."""
    found, parents, tick = {}, {}, os.sysconf("SC_CLK_TCK")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline", "rb").read().replace(b"\\0", b" ").decode(errors="replace")
            fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
            parents[pid] = fields[1]
            found[pid] = (words.strip(), (int(fields[11]) + int(fields[12])) / tick)
        except OSError:
            pass
    root, ours = open(f"{FOLDER}/driver").read(), {}
    for pid, (words, seconds) in found.items():
        above = pid
        while above not in ("0", root):
            above = parents.get(above, "0")
        if above == root:
            ours[f"{pid} {words}"] = seconds
    return ours


def note(event, **more):
    line = {"event": event, "at": time.time(), "cpu": time.process_time(), "pid": os.getpid(), **more}
    with open(f"{FOLDER}/{os.getpid()}.jsonl", "a") as file:
        file.write(json.dumps(line) + "\\n")


def traced(function, event):
    calls = 0

    def call(*arguments, **named):
        nonlocal calls
        calls += 1
        if event != "step" or calls == 1:
            note(f"{event} begins")
        try:
            return function(*arguments, **named)
        finally:
            if event != "step":
                note(f"{event} ends")
            elif calls == 1:
                note("first step ends", all=cpu_of_all())
            else:
                note("last step ends")

    return call


class Loader(importlib.abc.Loader):
    def __init__(self, loader, name):
        self.loader, self.name = loader, name

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        whole = [event for path, event in WATCHED[self.name] if not path]
        for event in whole:
            note(f"{event} begins")
        self.loader.exec_module(module)
        for event in whole:
            note(f"{event} ends")
        for path, event in WATCHED[self.name]:
            owner, *rest = [module, *path.split(".")]
            for part in rest[:-1]:
                owner = getattr(owner, part, None)
            if path and hasattr(owner, rest[-1]):
                setattr(owner, rest[-1], traced(getattr(owner, rest[-1]), event))

    def __getattr__(self, name):
        return getattr(self.loader, name)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in WATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            spec.loader = Loader(spec.loader, name)
        return spec


if FOLDER:
    words = open(f"/proc/{os.getpid()}/cmdline").read().replace("\\0", " ")
    if "default_worker" in words or "train_gan" in words or "train_vae" in words:
        note("interpreter runs", words=words)
        sys.meta_path.insert(0, Finder())
        if "default_worker" not in words:
            with open(f"{FOLDER}/driver", "w") as file:
                file.write(str(os.getpid()))
        import atexit

        atexit.register(note, "interpreter ends")
'''


Seconds = dict[str, float]


def run(tree: Path, words: list[str]) -> tuple[Seconds, Seconds, Seconds]:
    """By event: seconds after the command, CPU seconds of its process. By kind of process: those at the first step."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hook").mkdir()
        (Path(folder) / "hook" / "sitecustomize.py").write_text(TRACER)
        trace = Path(folder) / "trace"
        trace.mkdir()
        places = [f"{folder}/hook", str(tree)]
        env = {**os.environ, "STARTUP_TRACE": str(trace), "PYTHONPATH": os.pathsep.join(places)}
        began = time.time()
        command = [sys.executable, str(tree / "jobs" / "train_gan.py"), "--storage", f"{folder}/runs", *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        ended = time.time()
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        notes = [json.loads(line) for file in trace.glob("*.jsonl") for line in file.read_text().splitlines()]
        digest = losses(Path(folder) / "runs")
    print(f"  {tree}: losses {digest}", flush=True)
    return summarized(notes, began, ended)


def losses(runs: Path) -> str:
    """The losses of the run's last row, to compare trees."""
    [file] = runs.glob("*/metrics.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    last = [row for row in rows if any(name.startswith("loss/") for name in row)][-1]
    return " ".join(f"{name.removeprefix('loss/')} {value!r}" for name, value in last.items() if "loss/" in name)


def kind(words: str) -> str:
    """A process's kind, by its command line."""
    kinds = {
        "train_gan": "driver",
        "gcs_server": "Ray: gcs",
        "raylet/raylet": "Ray: raylet",
        "monitor.py": "Ray: monitors of logs and autoscaler",
        "dashboard": "Ray: dashboard and its agent",
        "DashboardAgent": "Ray: dashboard and its agent",
        "RuntimeEnvAgent": "Ray: agent of environments",
        "runtime_env/agent": "Ray: agent of environments",
        "TrainWorker": "workers",
        "TrainController": "Ray Train: controller, synchronization, data sets, autoscaling",
        "SynchronizationActor": "Ray Train: controller, synchronization, data sets, autoscaling",
        "DatasetManager": "Ray Train: controller, synchronization, data sets, autoscaling",
        "Autoscaling": "Ray Train: controller, synchronization, data sets, autoscaling",
        "EventChannel": "channel of events",
        "wandb": "W&B",
    }
    return next((name for part, name in kinds.items() if part in words), "others")


def summarized(notes: list[dict], began: float, ended: float) -> tuple[Seconds, Seconds, Seconds]:
    """The events of the driver and of the last of the workers; the rest as `run`."""
    notes.sort(key=lambda each: each["at"])
    driver = next(each["pid"] for each in notes if "jobs/train_gan" in each.get("words", ""))
    training = {each["pid"] for each in notes if each["event"] == "first step ends"}
    events: dict[str, float] = {}
    spent: dict[str, float] = {}
    for each in notes:
        if each["pid"] == driver:
            events.setdefault(f"driver: {each['event']}", each["at"] - began)
            spent.setdefault(f"driver: {each['event']}", each["cpu"])
        elif each["pid"] in training:
            name = f"workers: {each['event']}"
            events[name] = each["at"] - began  # of the last worker
            spent[name] = each["cpu"]
    events["command ends"] = ended - began
    used: Counter[str] = Counter()
    for words, seconds in max(
        (each["all"] for each in notes if "all" in each), key=lambda all: sum(all.values())
    ).items():
        used[kind(words)] += seconds
    return events, spent, dict(used)


def main() -> None:
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else SHORT
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tree", type=Path, action="append", help="a checkout; several are run in turn")
    options = parser.parse_args(own)
    trees = [tree.resolve() for tree in options.tree or [ROOT]]
    found = defaultdict(list)
    for _ in range(options.rounds):
        for tree in trees:
            found[tree].append(run(tree, words))
    for tree in trees:
        rounds = found[tree]
        print(f"\n{tree}: median of {len(rounds)}: seconds after the command (least), CPU seconds of the process")
        names = dict.fromkeys(name for events, _, _ in rounds for name in events)
        found_at = {name: [events[name] for events, _, _ in rounds if name in events] for name in names}
        median = {name: statistics.median(times) for name, times in found_at.items()}
        for name in sorted(names, key=median.__getitem__):
            least = min(found_at[name])
            spent = statistics.median([spent.get(name, 0.0) for _, spent, _ in rounds])
            print(f"  {median[name]:7.2f} ({least:6.2f})  {spent:6.2f}  {name}")
        print("CPU seconds at the first step")
        for name in sorted({name for _, _, used in rounds for name in used}):
            print(f"  {statistics.median([used.get(name, 0.0) for _, _, used in rounds]):7.2f}  {name}")
        print(f"  {statistics.median([sum(used.values()) for _, _, used in rounds]):7.2f}  together")


if __name__ == "__main__":
    main()
