"""Trials of a sweep that end before their time: asked to, judged by a scheduler, or for want of room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from imagegen_dist.cli.sweep_options import Command, demand_of, parse
from imagegen_dist.cli.sweep_run import build_plan
from imagegen_dist.ray.tune.driver import Limits
from imagegen_dist.ray.tune.schedulers import Population, build_scheduler
from imagegen_dist.ray.tune.searchers import Points, build_searcher
from imagegen_dist.ray.tune.trial import tune_result
from imagegen_dist.resources import Workers
from imagegen_dist.storage import Store
from imagegen_dist.sweep.capacity import Capacity, concurrent_groups, missing_resources, places
from imagegen_dist.sweep.plan import SweepPlan, TrialDemand
from imagegen_dist.sweep.trial import run_trial
from imagegen_dist.sweep.trial_store import COMPLETE, CUT, DIVERGED, RUNNING, STOPPED, Trial, TrialStore, decode_trial
from imagegen_dist.training.checkpoint import newest
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
    reported: list[Trial] = []
    run_trial(Trial(0, {"optim.*.lr": 1e-3}), plan, reported.append, stopping=lambda: bool(reported))
    assert reported[-1].state == CUT
    folder = plan.trial_settings("0000").folder
    found = newest(folder, lambda why: None)
    assert found is not None
    assert 240 <= found.images == reported[-1].images < 480
    assert not folder.exists("result.json")


def test_a_trial_that_waits_when_the_sweep_ends_is_not_begun(storage: str) -> None:
    plan = planned(storage, *LEARNING_RATE, "--name", "waiting")
    reported: list[Trial] = []
    run_trial(Trial(0, {"optim.*.lr": 1e-3}), plan, reported.append, stopping=lambda: True)
    assert not reported
    assert not plan.trial_settings("0000").folder.names()


def test_no_trial_is_suggested_once_the_sweep_ends(storage: str) -> None:
    searcher = Points(planned(storage, *LEARNING_RATE), TrialStore(Store("memory://sweep-closed")))
    assert decode_trial(searcher.suggest("a")["trial"]).run == "0000"
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
    rule = build_scheduler(plan, TrialStore(Store("memory://sweep-median")), Capacity())
    last: dict[float, Trial] = {}
    for number in range(plan.trials):
        trial = Trial(number, plan.space.point(number, plan.seed))
        tune_trial, rate = TuneTrial(trial.run, stub=True), trial.values["optim.*.lr"]
        rule.on_trial_add(Tune(), tune_trial)

        def report(reported: Trial, tune_trial: TuneTrial = tune_trial, rate: float = rate) -> None:
            last[rate] = reported
            if reported.state == RUNNING:
                decision = rule.on_trial_result(Tune(), tune_trial, tune_result(reported))
                if decision != TrialScheduler.CONTINUE:
                    raise SystemExit

        try:
            run_trial(trial, plan, report)
        except SystemExit:
            last[rate] = replace(last[rate], state=STOPPED)
        rule.on_trial_complete(Tune(), tune_trial, tune_result(last[rate]))
    states = {rate: trial.state for rate, trial in last.items()}
    assert states == {1e-3: COMPLETE, 2e-3: COMPLETE, 3e-3: COMPLETE, 1e30: DIVERGED, 1e-9: STOPPED}
    ended = newest(plan.trial_settings("0004", "").folder, lambda why: None)
    assert ended is not None
    assert ended.images == last[1e-9].images < 360


def test_budgets_are_told_when_they_are_spent() -> None:
    limits = Limits(seconds=60.0, gpu_hours=2.0)
    assert limits.reached(59.9, 1.99) == ""
    assert limits.reached(60.0, 0.0) == "--time-budget of 60 s is spent"
    assert limits.reached(0.0, 2.0) == "--gpu-hours 2 are spent"
    assert Limits().reached(1e9, 1e9) == ""


NODES = [{"CPU": 8.0, "GPU": 2.0, "memory": 1e9}, {"CPU": 4.0}]


def test_room_is_counted_machine_by_machine() -> None:
    assert places(TrialDemand(cpus=1, gpus=0.0), NODES) == 12
    assert places(TrialDemand(cpus=3, gpus=0.0), NODES) == 3
    assert places(TrialDemand(cpus=1, gpus=0.25), NODES) == 8
    assert places(TrialDemand(Workers(2, 4), 4, 1.0), NODES) == 2


def test_what_a_cluster_lacks_for_a_trial_is_said_with_what_there_is() -> None:
    assert missing_resources(TrialDemand(Workers(2, 4), 5, 0.0), NODES) == (
        "a trial needs 2 to 4 workers of 5 CPU cores each, and the cluster has room for 1 such worker "
        "(8 CPU cores and 2 GPUs, 4 CPU cores and 0 GPUs)"
    )
    assert missing_resources(TrialDemand(cpus=1, gpus=1.0), NODES[1:]).startswith(
        "a trial needs 1 CPU core and 1 GPU, and the cluster has room for 0 such workers"
    )
    assert missing_resources(TrialDemand(cpus=1, gpus=1.0), NODES) == ""


def test_as_many_groups_run_as_fit_into_the_cluster_as_it_is_now_and_one_where_none_fits() -> None:
    demand = TrialDemand(Workers(1, 4), 1, 0.0)
    assert [concurrent_groups(demand, nodes, 5) for nodes in ([], NODES, NODES * 3)] == [1, 3, 5]
    assert concurrent_groups(demand, NODES * 3, None) == 9


def test_no_more_trials_are_active_than_the_limit_allows() -> None:
    capacity = Capacity(2)
    assert [capacity.acquire(name) for name in "aab"] == [True, True, True]
    assert not capacity.acquire("c")
    capacity.release("a")
    assert capacity.acquire("c")
    capacity.limit = None
    assert capacity.has_room()


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
    capacity = Capacity(2)
    population = build_scheduler(plan, trial_store, capacity)
    assert isinstance(population, Population)
    searcher = build_searcher(plan, trial_store, capacity)
    members = []
    while isinstance(suggestion := searcher.suggest(str(len(members))), dict):
        members.append(TuneTrial("member", config=suggestion, trial_id=str(len(members)), stub=True))
        population.on_trial_add(None, members[-1])
        members[-1].status = TuneTrial.RUNNING
    assert len(members) == 2
    population.on_trial_result(Members(members), members[0], {"images": 120, "eval/frechet": 1.0})
    assert members[0].status == TuneTrial.PAUSED  # at the meeting
    assert decode_trial(searcher.suggest("2")["trial"]).run == "0002"
    searcher.on_trial_complete("2")
    assert decode_trial(searcher.suggest("3")["trial"]).run == "0003"


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
    population, searcher = build_scheduler(plan, trial_store, Capacity()), build_searcher(plan, trial_store)
    assert isinstance(population, Population)
    searcher.is_awaited = population.is_unfinished
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
