"""jobs/export.py: what it answers to mistakes."""

import sys
from pathlib import Path

import pytest

from imagegen_dist.cli.export import main
from imagegen_dist.errors import DONE, MISUSED
from tests.checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("run"), "mlp-vae")


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command answers, checked to be one line on standard error and exit code 2."""
    assert main(arguments) == MISUSED == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("export.py: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "CHECKPOINT and DEST are needed"),
        (["RUN"], "CHECKPOINT and DEST are needed"),
        (["RUN", "out", "--to", "gguf"], "gguf"),
        (["RUN", "out", "--to", "onnx", "--push", "me/it"], "goes with --to hf"),
        (["RUN", "out", "--push", "it"], "give USER/NAME"),
        (["RUN", "out", "--license", "My Own!"], "an identifier of the Hub"),
        (["RUN", "out", "--discriminator"], "has no discriminator"),
        (["/nowhere/at/all", "out"], "holds no complete checkpoint"),
        (["gopher://run", "out"], "unknown protocol"),
        (["RUN", "s3://key:secret@bucket/x"], "carries a password"),
    ],
)
def test_mistakes(
    arguments: list[str], said: str, run: str, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in mistake(capsys, *(run if word == "RUN" else word for word in arguments))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["hf", "torch", "onnx"])
def test_a_dest_that_holds_something_is_left_alone(
    form: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for dest in ("folder", "file"):
        assert "holds something already" in mistake(capsys, run, str(tmp_path / dest), "--to", form)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["mine.txt"]


def test_an_empty_dest_is_taken(run: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert main([run, str(tmp_path / "empty")]) == DONE


def test_onnx_that_is_not_installed_is_said_before_anything_is_written(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install -e '.[export]' in " in mistake(capsys, run, str(tmp_path / "out"), "--to", "onnx")
    assert not (tmp_path / "out").exists()


def test_pushing_without_a_token_is_said_first(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "--push needs a token" in mistake(capsys, run, str(tmp_path / "out"), "--push", "me/it")
    assert not (tmp_path / "out").exists()
