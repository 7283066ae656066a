"""What a driver learns of Ray from its environment."""

import json

import pytest

from imagegen_dist.ray.environment import JOB_STOP_WAIT, short_job_stop
from imagegen_dist.resources import is_own_ray

SUBMITTED = json.dumps({"metadata": {"job_submission_id": "raysubmit_1"}})


def test_a_submitted_job_says_where_a_stop_would_kill_it_before_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.delenv(JOB_STOP_WAIT, raising=False)
    assert short_job_stop() == ""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", SUBMITTED)
    assert short_job_stop().startswith("`ray job stop` kills this job after 3 s, before its checkpoint is written")
    assert f"{JOB_STOP_WAIT}=300" in short_job_stop()
    monkeypatch.setenv(JOB_STOP_WAIT, "300")
    assert short_job_stop() == ""


@pytest.mark.parametrize(("address", "own"), [("", True), ("local", True), ("auto", False), ("10.0.0.1:6379", False)])
def test_a_ray_of_our_own_is_started_where_no_cluster_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str, own: bool
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert is_own_ray() is own
