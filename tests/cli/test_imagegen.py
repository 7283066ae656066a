"""`imagegen`: its sub-commands, what it prints without torch or Ray, completion, and `runs` on trained runs."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from imagegen_dist import __version__, records
from imagegen_dist.cli.imagegen import _COMMANDS, main
from imagegen_dist.cli.prepare import prepare
from imagegen_dist.cli.run_summary import read_run
from imagegen_dist.cli.train_options import parse
from imagegen_dist.commands import command, name_of
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.errors import DONE, FAILED, MISUSED
from imagegen_dist.storage import Store
from imagegen_dist.storage.lease import Holder
from imagegen_dist.training.checkpoint import newest
from tests.runs import TINY, Listener, train_here
from tests.s3.fixtures import Bucket

ROOT = Path(__file__).parents[2]

WITHOUT_TORCH = """
import contextlib, io, sys
from imagegen_dist.cli.imagegen import main
sys.argv[0] = "imagegen"
for line in sys.stdin.read().splitlines():
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(line.split())
    print(f"$ {line}\\n{code}\\n{said.getvalue()}")
    assert not {"torch", "ray"} & set(sys.modules), line
"""
TYPOS = {
    "trian": "imagegen: there is no command 'trian'; did you mean train?",
    "data pakc": "imagegen: there is no command 'data pakc'; did you mean pack?",
    "train digts": "imagegen train: there is no preset 'digts'; did you mean digits?",
    "train digits --wrokers 2": "imagegen train: --wrokers: no such flag; did you mean --workers?",
    "train digits --gamma 1": "imagegen train: --gamma: no such flag; did you mean --objective.gamma?",
    "train digits --objective.gama 1": "no such setting in objective; did you mean --objective.gamma?",
    "train digits --objective.gamma x": "objective.gamma: 'x': write NUMBER or START:END:IMAGES",
    "train digits --objective hing": "objective.kind: 'hing' is not known; there are factorvae, gan,",
    "train digits --help objectiv": "--help objectiv: did you mean objective?",
    "sweep gan-lrr": "imagegen sweep: there is no search 'gan-lrr'; did you mean gan-lr?",
    "sweep gan-lr --training.batch-sice 8": "--training.batch-sice: no such setting in training; did you mean --train",
    "sweep digits --space objective.gama=grid:1": "--space objective.gama=grid:1: --objective.gama: no such setting",
    "reproduce r3gan-cifr10": "no preset 'r3gan-cifr10' with a published figure; did you mean r3gan-cifar10?",
    "reproduce digits": "imagegen reproduce: digits has no published figure",
    "evaluate run --metrics fidd": "imagegen evaluate: --metrics fidd: no such metric; did you mean fid?",
    "sample run --girds a.png": "imagegen sample: --girds: no such flag; did you mean --grid?",
    "data pack in out --siez 8x8": "imagegen data pack: --siez: no such flag; did you mean --size?",
    "data check": "imagegen data check: URL is needed",
    "runs clean --removed": "imagegen runs clean: --removed: no such flag; did you mean --remove?",
    "export run out --to onxn": "imagegen export: --to onxn: did you mean onnx?",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script that pip makes of the entry point."""
    path = tmp_path_factory.mktemp("bin") / "imagegen"
    path.write_text(f"#!{sys.executable}\nimport sys\nfrom imagegen_dist.cli.imagegen import main\nsys.exit(main())\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as if it was started as `imagegen`, in a terminal of 80 columns without a browser."""
    monkeypatch.setattr(sys, "argv", ["imagegen"])
    for screen in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(screen, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def test_help_and_misspelt_words_import_neither_torch_nor_ray() -> None:
    helps = [f"{name} --help" for name in ("", "data", "runs", *_COMMANDS)]
    helps += [
        "train digits-vae --help",
        "train --help objective",
        "train digits-vae --objective.beta 4 --help training optim",
    ]
    lines = [*helps, "--version", *TYPOS]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"COLUMNS": "80", "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = dict(part.split("\n", 1) for part in done.stdout.split("$ ")[1:])
    assert len(answers) == len(lines)
    for line in (*helps, "--version"):
        assert answers[line].startswith(f"{DONE}\n"), answers[line]
        assert max(map(len, answers[line].splitlines())) <= 80, answers[line]
    for line, said in TYPOS.items():
        assert answers[line].startswith(f"{MISUSED}\n")
        assert said in answers[line]
        assert answers[line].strip().count("\n") == 1
    assert all(f"  {name} " in answers[" --help"] for name in _COMMANDS)
    assert f"imagegen {__version__}" in answers["--version"]


def test_it_is_a_program_and_a_module(program: Path) -> None:
    for call in ([str(program)], [sys.executable, "-m", "imagegen_dist"]):
        done = subprocess.run([*call, "runs", "show", "nowhere"], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == MISUSED
        name = "imagegen" if call == [str(program)] else "python -m imagegen_dist"
        assert done.stderr == f"{name} runs show: {ROOT}/runs/nowhere is no run: it has no config.json\n"


def test_every_entry_point_can_be_imported() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {"imagegen", "imagegen-train-gan", "imagegen-make-shards"} <= set(scripts)
    for target in scripts.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize(
    ("argv", "job", "said"),
    [
        ("bin/imagegen", "train_gan", "imagegen train a"),
        ("bin/imagegen", "index_shards", "imagegen data index a"),
        ("imagegen_dist/__main__.py", "make_shards", "python -m imagegen_dist data pack a"),
        ("bin/imagegen-train-gan", "train_gan", "imagegen-train-gan a"),
        ("bin/imagegen-make-shards", "index_shards", "imagegen-make-shards --index-only a"),
        ("jobs/train_gan.py", "train_gan", f"python {ROOT}/jobs/train_gan.py a"),
        ("jobs/make_shards.py", "index_shards", f"python {ROOT}/jobs/make_shards.py --index-only a"),
        ("jobs/train_gan.py", "runs list", "python -m imagegen_dist runs list a"),
    ],
)
def test_printed_commands_are_called_as_the_user_called_this_one(
    argv: str, job: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [argv])
    assert command(job, "a") == said
    assert name_of(job) in (said.split(" --index-only")[0].removesuffix(" a"), f"{Path(argv).stem}.py")


def test_completion_in_bash(program: Path) -> None:
    def completed(*words: str) -> list[str]:
        typed = " ".join(f"'{word}'" for word in ("imagegen", *words))
        script = (
            f'PATH="{program.parent}:$PATH"; source <(imagegen --print-completion bash); '
            f'COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _imagegen; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.split()

    assert completed("tr") == ["train"]
    assert completed("runs", "") == ["clean", "compare", "list", "open", "show"]
    assert completed("train", "digits-v") == ["digits-vae"]
    assert completed("train", "digits", "--objective.pen") == ["--objective.penalty", "--objective.penalty-every"]


@pytest.mark.parametrize("name", _COMMANDS)
def test_flags_of_every_command_are_completed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--complete", *name.split(), "--"]) == DONE
    assert all(word.startswith("--") for word in capsys.readouterr().out.split())


def test_completion_knows_flags_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    for words, found in {
        ("train", "digits", "--wandb", "o"): ["offline", "online"],
        ("export", "--t"): ["--to"],
        ("data", "check", "--w"): ["--workers"],
        ("runs", "compare", "--st"): ["--storage"],
        ("sweep", "gan-"): ["gan-lr", "gan-pbt", "gan-tpe"],
        ("sample", "run"): [],
    }.items():
        assert main(["--complete", *words]) == DONE
        assert capsys.readouterr().out.split() == found
    for shell in ("bash", "zsh", "fish"):
        assert main(["--print-completion", shell]) == DONE
        assert "imagegen --complete" in capsys.readouterr().out
    assert main(["--print-completion", "csh"]) == MISUSED


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short runs, one finished and one stopped, trained in this process."""
    folder = tmp_path_factory.mktemp("storage")
    packed = Store(tmp_path_factory.getbasetemp() / "storage") / ".data"  # once for all modules
    data = [builtin_dataset("digits", split, packed).url for split in ("train", "val")]
    few = {"training.total_images": 240, "training.report_every": 48, "training.listen_every": 48}
    few |= {"training.checkpoint_every": 96, "evaluation.samples": 64, "evaluation.classifier_images": 320}
    few["evaluation.searched"] = 0
    settings = [word for path, value in {**TINY, **few}.items() for word in (f"--{path}", json.dumps(value))]
    for name, words in {"one": ["--objective.gamma", "0.5"], "two": ["--optim.generator.lr", "1e-3:1e-4:240"]}.items():
        words += ["--storage", str(folder), "--run", name, "--wandb", "disabled", "--data", data[0]]
        words = ["digits", *settings, *words, "--data.validation", data[1]]
        prepared = prepare(parse("train_gan", words))
        where = replace(prepared.settings, attempt=f"20300101T00000{len(name)}-abc")
        records.write_config(where, prepared.experiment, prepared.index, {})
        train_here(prepared.experiment, where, Listener(stop_at=144) if name == "two" else None)
    return folder


@pytest.mark.usefixtures("called")
def test_runs_are_listed_with_state_and_figures(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", str(storage)]) == DONE
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    one, two = (next(line for line in lines if line.startswith(name)) for name in ("one", "two"))
    assert one.split()[1:5] == ["finished", "240", "of", "240"]
    assert "Fréchet distance" in one
    assert "2030-01-01" in one
    assert two.split()[1:5] == ["stopped", "144", "of", "240"]
    assert main(["runs", "list", str(storage / "one")]) == FAILED


@pytest.mark.usefixtures("called")
def test_a_run_is_shown_with_what_differs_and_how_to_continue(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "show", "one", "--storage", str(storage)]) == DONE
    shown = capsys.readouterr().out
    assert "one  finished, 240 of 240 images" in shown
    assert "--objective.gamma " in shown
    assert "0.5  (preset: 1:0.6:90000)" in shown
    assert "--objective.loss" not in shown
    assert "240 images" in shown
    assert f"imagegen train --storage {storage} --run one --training.total-images IMAGES" in shown
    assert main(["runs", "show", str(storage / "two")]) == DONE
    assert f"    imagegen train --storage {storage} --run two\n" in capsys.readouterr().out


@pytest.mark.usefixtures("called")
def test_runs_are_compared_by_settings_and_figures(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "compare", str(storage / "one"), str(storage / "two")]) == DONE
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    table = {" ".join(words[:-2]): words[-2:] for words in map(str.split, lines) if len(words) > 2}
    assert table["objective.gamma"] == ["0.5", "1:0.6:90000"]
    assert table["optim.generator.lr"] == ["0.0015:0.0001:160000", "0.001:0.0001:240"]
    assert "objective.loss" not in table
    assert table["Fréchet distance"][0] != table["Fréchet distance"][1] == "–"
    assert main(["runs", "compare", str(storage / "one")]) == MISUSED


@pytest.mark.usefixtures("called")
def test_a_report_is_named_where_there_is_no_browser(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "open", str(storage / "one")]) == DONE
    assert capsys.readouterr().out == f"{storage / 'one' / 'report.html'}\n"


@pytest.mark.usefixtures("called")
def test_cleaning_lists_first_and_keeps_the_newest_checkpoint_and_the_best(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(storage / "one", tmp_path / "one")
    run = read_run(Store(tmp_path / "one"))
    older = [each for each in run.checkpoints[1:] if each.metric is None]
    assert older
    assert main(["runs", "clean", str(tmp_path / "one"), "--checkpoints"]) == DONE
    assert "--remove removes it" in capsys.readouterr().out
    assert len(read_run(run.store).checkpoints) == len(run.checkpoints)
    assert main(["runs", "clean", str(tmp_path / "one"), "--checkpoints", "--remove"]) == DONE
    left = read_run(run.store).checkpoints
    assert [each.images for each in left] == [each.images for each in run.checkpoints if each not in older]
    assert newest(run.store, lambda why: None) is not None
    assert main(["runs", "clean", str(tmp_path / "one"), "--checkpoints"]) == DONE
    assert "nothing to remove" in capsys.readouterr().out


@pytest.mark.usefixtures("called")
def test_a_run_is_removed_whole_unless_somebody_trains_it(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "two"
    shutil.copytree(storage / "two", folder)
    (folder / "lease.json").write_text(json.dumps(vars(Holder.here())))
    assert main(["runs", "clean", str(folder), "--remove"]) == MISUSED
    assert "is being trained by process" in capsys.readouterr().err
    assert main(["runs", "list", str(tmp_path)]) == DONE
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "training"
    (folder / "lease.json").unlink()
    assert main(["runs", "clean", str(folder), "--remove"]) == DONE
    assert not folder.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("no run")
    assert main(["runs", "clean", str(tmp_path / "mine"), "--remove"]) == MISUSED
    assert (tmp_path / "mine" / "notes.txt").exists()


@pytest.mark.usefixtures("called")
def test_runs_in_a_bucket(storage: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    """They are listed, shown and removed as on a disk, and a report is opened from a local copy."""
    shutil.copytree(storage / "one", bucket.folder / "runs" / "one")
    assert main(["runs", "list", f"{bucket.url}/runs"]) == DONE
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["one", "finished"]
    assert main(["runs", "show", f"{bucket.url}/runs/one"]) == DONE
    assert f"imagegen sample {bucket.url}/runs/one --grid samples.png" in capsys.readouterr().out
    assert main(["runs", "open", f"{bucket.url}/runs/one"]) == DONE
    report = Path(capsys.readouterr().out.strip())
    assert report.read_bytes() == (storage / "one" / "report.html").read_bytes()
    shutil.rmtree(report.parent)
    assert main(["runs", "clean", "one", "--storage", f"{bucket.url}/runs", "--remove"]) == DONE
    assert not (bucket.folder / "runs" / "one").exists()
