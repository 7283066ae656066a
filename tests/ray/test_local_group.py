"""A group of workers on this machine's cores, with stand-ins for its actors, and the Ray that starts early."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from imagegen_dist.cli.train import main_gan
from imagegen_dist.ray import local_group
from imagegen_dist.ray.cluster import Share, connected
from imagegen_dist.ray.early import EarlyRay
from imagegen_dist.ray.failure import diagnose
from imagegen_dist.resources import Workers

SHARE = Share(Workers(2, 2), gpu=False, cpus=1)


class Actor:
    """A worker whose training ends with a result or an error, `after` a number of waits; `answers` when asked."""

    def __init__(self, outcome: BaseException | None, after: int = 0, answers: bool = True) -> None:
        self.outcome, self.after, self.answers = outcome, after, answers
        self.given: tuple[Any, ...] = ()

    @property
    def train(self) -> Any:
        return _Method(lambda *given: setattr(self, "given", given) or ("train", self))

    @property
    def answer(self) -> Any:
        return _Method(lambda: ("answer", self))


class _Method:
    def __init__(self, remote: Callable[..., Any]) -> None:
        self.remote = remote


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Actor]:
    """The actors that were killed; time passes by what is waited for."""
    now, ended = [0.0], list[Actor]()

    def wait(refs: Sequence[Any], num_returns: int = 1, timeout: float = 0) -> tuple[list[Any], list[Any]]:
        now[0] += timeout
        for kind, actor in refs:
            if kind == "train":
                actor.after -= 1
        done = [(kind, actor) for kind, actor in refs if (actor.after < 0 if kind == "train" else actor.answers)]
        return done[:num_returns], []

    def get(refs: Any) -> None:
        for _, actor in refs if isinstance(refs, list) else [refs]:
            if actor.outcome:
                raise actor.outcome

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "kill", ended.append)
    monkeypatch.setattr(local_group.time, "monotonic", lambda: now[0])
    return ended


def fit(*actors: Actor, workers: int | None = None) -> None:
    local_group.fit({}, SHARE, workers or len(actors), "/meeting", 120, actors)


def test_workers_created_early_are_used_and_those_too_many_are_ended(killed: list[Actor]) -> None:
    actors = [Actor(None, 1), Actor(None, 3), Actor(None)]
    fit(*actors, workers=2)
    assert [actor.given for actor in actors] == [({}, 0, 2, "/meeting", 120), ({}, 1, 2, "/meeting", 120), ()]
    assert killed == actors


def test_the_cause_is_among_the_failures_that_follow_it_at_once(killed: list[Actor]) -> None:
    """Rank 0 notices the loss of rank 1 first; the loss itself arrives a moment later."""
    follows = ray.exceptions.RayTaskError("train", "gloo: connection closed by peer", RuntimeError("gloo: closed"))
    dies = ray.exceptions.ActorDiedError()
    with pytest.raises(local_group.GroupFailed) as failed:
        fit(Actor(follows), Actor(dies, 1))
    assert failed.value.worker_failures == {0: follows, 1: dies}
    failure = diagnose(failed.value)
    assert (failure.died, failure.cause) == (True, "worker 1 was lost: its process ended unexpectedly")
    assert len(killed) == 2


def test_a_worker_that_stops_answering_is_lost_and_one_that_starts_slowly_is_not(
    killed: list[Actor], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(Actor(None, 100, answers=False), Actor(None, 100, answers=False))  # 500 s of start
    hangs = Actor(None, 1000)
    answer = Actor.answer.fget

    def hung(self: Actor) -> Any:
        self.answers = self is not hangs or killed.count(hangs) > 0 or self.after > 990
        return answer(self)  # type: ignore[misc]

    monkeypatch.setattr(Actor, "answer", property(hung))
    with pytest.raises(local_group.GroupFailed, match="worker 1: no answer for 90 s"):
        fit(Actor(None, 1000), hangs)
    assert "WorkerSilent" in diagnose(local_group.GroupFailed({1: local_group.WorkerSilent("no answer")})).cause


def test_early_workers_of_another_size_are_ended(killed: list[Actor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EarlyRay, "_run", lambda self: None)
    early, worker = EarlyRay(), Actor(None)
    early._share, early._ready = SHARE, [worker]
    assert early.ready(Share(Workers(1, 1), gpu=False, cpus=2)) == []
    assert killed == [worker]
    early._ready = [worker]
    assert early.ready(SHARE) == [worker]
    assert early.ready(SHARE) == []  # once


def test_only_a_command_that_is_a_process_of_its_own_starts_ray_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[object] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(EarlyRay, "_run", lambda self: begun.append(self))
    monkeypatch.setattr(EarlyRay, "leave", lambda self, code: begun.append(code))
    words = ["--storage", str(tmp_path), "--data", str(tmp_path / "nothing")]
    assert main_gan(words) == 2
    assert not begun
    monkeypatch.setattr("sys.argv", ["train_gan.py", *words, "--objective.gama", "1"])
    assert main_gan() == 2
    assert not begun  # a misspelt word is answered without it
    monkeypatch.setattr("sys.argv", ["train_gan.py", *words])
    assert main_gan() == 2
    assert begun[1:] == [2]  # the mistake ends the process, and Ray with it
    assert capsys.readouterr().err.count("\n") == 3


def test_a_ray_that_did_not_start_early_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def init(**options: object) -> None:
        started.append("quiet" if options["logging_level"] == logging.ERROR else "alone")
        if len(started) == 1:
            raise Exception("The current node timed out during startup.")  # as Ray does

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr("imagegen_dist.ray.own_node.kill_children", lambda: started.append("killed"))
    with connected(early=EarlyRay()) as own:
        assert own
    assert started == ["quiet", "killed", "alone"]
