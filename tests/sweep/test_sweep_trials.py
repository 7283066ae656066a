"""Trials of a sweep that end before their time: asked to, judged by a scheduler, or for want of room."""

from __future__ import annotations

from typing import Any

import pytest
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from imagegen_dist.cli.sweep_options import Command, demand_of, parse
from imagegen_dist.cli.sweep_run import build_plan
from imagegen_dist.ray.tune.driver import Limits
from imagegen_dist.ray.tune.schedulers import Population, build_scheduler
from imagegen_dist.ray.tune.searchers import Points, build_searcher
from imagegen_dist.ray.tune.trial import carry_out, train
from imagegen_dist.resources import Workers
from imagegen_dist.storage import Store
from imagegen_dist.sweep.crowd import Crowd, lack_of_room, room_for
from imagegen_dist.sweep.plan import SweepPlan, TrialDemand
from imagegen_dist.sweep.trial_store import CUT, DIVERGED, TrialStore
from imagegen_dist.training.checkpoint import newest
from tests.runs import CPU
from tests.sweep.test_sweep import SMALL


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shared by the module's tests, so that the digits are packed once."""
    return str(tmp_path_factory.getbasetemp() / "storage")


def planned(storage: str, *words: str) -> SweepPlan:
    command = parse(["digits", "--storage", storage, "--wandb", "disabled", *SMALL, *words])
    assert isinstance(command, Command)
    return build_plan(command)


LEARNING_RATE = ("--space", "optim.*.lr=grid:1e-3,2e-3,3e-3,1e30,1e-9")


def test_a_trial_that_is_asked_to_end_writes_a_checkpoint_and_says_how_far_it_is(storage: str) -> None:
    plan = planned(storage, *LEARNING_RATE, "--name", "asked", "--evaluation.every", "240")
    settings = plan.trial_settings("0000", "")
    results: list[dict[str, Any]] = []
    experiment = plan.space.apply(plan.experiment, {"optim.*.lr": 1e-3})
    train(experiment, settings, plan, CPU, results.append, asked=lambda: any("eval/frechet" in r for r in results))
    assert results[-1]["state"] == CUT
    found = newest(settings.folder, lambda why: None)
    assert found is not None
    assert 240 <= found.images == results[-1]["seen"] < 480
    assert not settings.folder.exists("result.json")


def test_a_trial_that_waits_when_the_sweep_ends_is_not_begun(storage: str) -> None:
    plan = planned(storage, *LEARNING_RATE, "--name", "waiting")
    tune_config = {"run": "0000", "values": {"optim.*.lr": 1e-3}, "start": "", "over": False, "replay": False}
    begun: list[object] = []
    carry_out(tune_config, plan, begun.append, lambda *given: begun.append(given), asked=lambda: True)
    assert not begun
    carry_out(tune_config, plan, begun.append, lambda *given: begun.append(given), asked=lambda: False)
    assert len(begun) == 1


def test_no_trial_is_suggested_once_the_sweep_ends(storage: str) -> None:
    searcher = Points(planned(storage, *LEARNING_RATE), TrialStore(Store("memory://sweep-closed")), compared=False)
    assert searcher.suggest("a")["run"] == "0000"
    searcher.closed = True
    assert searcher.suggest("b") == Points.FINISHED


class Tune:
    """As much of Ray Tune's controller as a scheduler asks: a trial waits for a place."""

    def get_live_trials(self) -> list[TuneTrial]:
        return [TuneTrial("waits", stub=True)]


def test_median_stopping_ends_the_bad_trial_alone(storage: str) -> None:
    """Real trainings, one after another: three learn, one diverges, one has a learning rate of almost nothing."""
    figures = ("--evaluation.every", "120", "--training.total-images", "360", "--training.max-bad-steps", "2")
    plan = planned(storage, *LEARNING_RATE, "--name", "median", "--scheduler", "median", *figures)
    rule = build_scheduler(plan, TrialStore(Store("memory://sweep-median")))
    last: dict[str, dict[str, Any]] = {}
    for number in range(plan.trials):
        values = plan.space.point(number, plan.seed)
        name = str(values["optim.*.lr"])
        trial = TuneTrial(name, stub=True)
        rule.on_trial_add(Tune(), trial)

        def report(result: dict[str, Any], trial: TuneTrial = trial, name: str = name) -> None:
            last[name] = result
            if rule.on_trial_result(Tune(), trial, result) != TrialScheduler.CONTINUE:
                raise SystemExit

        def begin(experiment: Any, settings: Any, tell: Any) -> None:
            train(experiment, settings, plan, CPU, tell)

        tune_config = {"run": f"{number:04d}", "values": values, "start": "", "over": False, "replay": False}
        try:
            carry_out(tune_config, plan, report, begin, asked=lambda: False)
        except SystemExit:
            last[name] |= {"state": "stopped"}
        rule.on_trial_complete(Tune(), trial, last[name])
    states = {name: result.get("state") for name, result in last.items()}
    assert states == {
        "0.001": "complete",
        "0.002": "complete",
        "0.003": "complete",
        "1e+30": DIVERGED,
        "1e-09": "stopped",
    }
    ended = newest(plan.trial_settings("0004", "").folder, lambda why: None)
    assert ended is not None
    assert ended.images == last["1e-09"]["images"] < 360


def test_budgets_are_told_when_they_are_spent() -> None:
    limits = Limits(seconds=60.0, gpu_hours=2.0)
    assert limits.reached(59.9, 1.99) == ""
    assert limits.reached(60.0, 0.0) == "--time-budget of 60 s is spent"
    assert limits.reached(0.0, 2.0) == "--gpu-hours 2 are spent"
    assert Limits().reached(1e9, 1e9) == ""


NODES = [{"CPU": 8.0, "GPU": 2.0, "memory": 1e9}, {"CPU": 4.0}]


def test_room_is_counted_machine_by_machine() -> None:
    assert room_for(TrialDemand(cpus=1, gpus=0.0), NODES) == 12
    assert room_for(TrialDemand(cpus=3, gpus=0.0), NODES) == 3
    assert room_for(TrialDemand(cpus=1, gpus=0.25), NODES) == 8
    assert room_for(TrialDemand(Workers(2, 4), 4, 1.0), NODES) == 2


def test_what_a_cluster_lacks_for_a_trial_is_said_with_what_there_is() -> None:
    assert lack_of_room(TrialDemand(Workers(2, 4), 5, 0.0), NODES) == (
        "a trial needs 2 to 4 workers of 5 CPU cores each, and the cluster has room for 1 such worker "
        "(8 CPU cores and 2 GPUs, 4 CPU cores and 0 GPUs)"
    )
    assert lack_of_room(TrialDemand(cpus=1, gpus=1.0), NODES[1:]).startswith(
        "a trial needs 1 CPU core and 1 GPU, and the cluster has room for 0 such workers"
    )
    assert lack_of_room(TrialDemand(cpus=1, gpus=1.0), NODES) == ""


def test_as_many_trials_wait_as_the_cluster_has_room_for_now_and_one_where_it_has_none() -> None:
    crowd = Crowd(TrialDemand(cpus=1, gpus=1.0))
    seen = []
    for machines in ([], NODES, [*NODES, *NODES], []):
        crowd.follow(machines)
        while crowd.has_room():
            seen.append(f"t{len(seen)}")
            crowd.began(seen[-1])
        assert len(seen) == {0: 1, 2: 2, 4: 4}[crowd.room] if machines else crowd.room == 0
    assert len(seen) == 4
    crowd.started("t0")
    crowd.ended("t1")
    assert not crowd.has_room()  # two wait, and the cluster is empty
    crowd.follow(NODES)
    assert not crowd.has_room()
    crowd.started("t2")
    assert crowd.has_room()


def test_as_many_groups_run_as_fit_into_the_cluster_as_it_is_now_and_one_where_none_fits() -> None:
    crowd = Crowd(TrialDemand(Workers(1, 4), 1, 0.0), at_once=5)
    running = []
    for machines in ([], NODES, NODES * 3):
        crowd.follow(machines)
        while crowd.has_room():
            running.append(f"t{len(running)}")
            crowd.began(running[-1])
            crowd.started(running[-1])
        assert len(running) == {0: 1, 12: 3, 36: 5}[crowd.room]


def test_a_sweep_goes_on_with_other_workers_where_the_command_says_so(storage: str) -> None:
    plan = planned(storage, *LEARNING_RATE, "--workers", "2:3", "--cpus", "2")
    assert plan.demand == TrialDemand(Workers(2, 3), 2, None)
    resumed = parse(["--resume", "x", "--workers", "1", "--gpus", "0.5"])
    assert not isinstance(resumed, Command)
    assert demand_of(resumed, plan.demand) == TrialDemand(Workers(1, 1), 2, 0.5)


def test_members_of_a_population_beyond_the_limit_wait_their_turn(storage: str) -> None:
    space = ("--space", "optim.*.lr=loguniform:1e-4:1e-2")
    plan = planned(storage, *space, "--scheduler", "pbt", "--trials", "4", "--evaluation.every", "120")
    trial_store = TrialStore(Store("memory://sweep-members"))
    population = build_scheduler(plan, trial_store)
    assert isinstance(population, Population)
    searcher = build_searcher(plan, trial_store)
    population.at_once, searcher.has_room = 2, population.has_room
    members = []
    while isinstance(suggestion := searcher.suggest(str(len(members))), dict):
        members.append(TuneTrial("member", config=suggestion, trial_id=str(len(members)), stub=True))
        population.on_trial_add(None, members[-1])
    assert len(members) == 2
    members[0].status = TuneTrial.PAUSED  # at the meeting
    assert searcher.suggest("2")["run"] == "0002"


class Members(Tune):
    """A controller of members, which pauses those that wait."""

    def __init__(self, members: list[TuneTrial]) -> None:
        self.members = members

    def get_trials(self) -> list[TuneTrial]:
        return self.members

    def pause_trial(self, trial: TuneTrial, should_checkpoint: bool) -> None:
        trial.status = TuneTrial.PAUSED


def population_of(storage: str, trials: int) -> tuple[Population, Points, Members]:
    """A population, what it asks for settings, and a controller that knows its members."""
    space = ("--space", "optim.*.lr=loguniform:1e-4:1e-2")
    plan = planned(storage, *space, "--scheduler", "pbt", "--trials", str(trials), "--evaluation.every", "120")
    trial_store = TrialStore(Store(f"memory://sweep-of-{trials}"))
    population, searcher = build_scheduler(plan, trial_store), build_searcher(plan, trial_store)
    assert isinstance(population, Population)
    searcher.is_awaited = population.goes_on
    members = [TuneTrial("member", config=searcher.suggest(str(n)), trial_id=str(n), stub=True) for n in range(trials)]
    controller = Members(members)
    for member in members:
        population.on_trial_add(controller, member)
        member.status = TuneTrial.RUNNING
    return population, searcher, controller


def test_members_do_not_meet_without_those_that_the_end_of_the_sweep_has_cut_short(storage: str) -> None:
    population, _, controller = population_of(storage, 4)
    members = controller.members
    for number, member in enumerate(members[:3]):
        population.on_trial_result(controller, member, {"images": 120, "eval/frechet": float(number)})
    members[3].status = TuneTrial.TERMINATED
    population.closed = True
    assert population.choose_trial_to_run(controller) is None
    population.closed = False
    assert population.choose_trial_to_run(controller) in members[:3]  # as if it had diverged: the others go on


def test_the_last_member_at_a_meeting_goes_on_and_the_search_is_open_as_long_as_others_wait(storage: str) -> None:
    population, searcher, controller = population_of(storage, 3)
    members = controller.members

    def report(number: int, images: int) -> str:
        result = {"images": images, "eval/frechet": float(number)}
        return population.on_trial_result(controller, members[number], result)

    assert [report(number, 120) for number in range(3)] == ["NOOP", "NOOP", "CONTINUE"]
    assert [member.status for member in members] == ["PAUSED", "PAUSED", "RUNNING"]
    assert searcher.suggest("3") is None
    assert population.choose_trial_to_run(controller) is members[0]
    assert report(2, 240) == "NOOP"
    for member in members:
        member.status = TuneTrial.TERMINATED
    assert searcher.suggest("3") == "FINISHED"
