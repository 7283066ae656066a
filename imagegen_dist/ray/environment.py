"""What Ray and its workers read from the environment."""

import json
import os

JOB_STOP_WAIT_S = 300
"""Seconds that `ray job stop` gives a job between SIGTERM and SIGKILL; Ray's own are 3, too few for a checkpoint."""

JOB_STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""The environment variable of that: Ray reads it on the node that the job's driver runs on."""


def short_job_stop() -> str:
    """A warning where this is a submitted job that `ray job stop` would kill before its checkpoint; else ""."""
    metadata = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}").get("metadata") or {}
    given = os.environ.get(JOB_STOP_WAIT, "3")
    if "job_submission_id" not in metadata or not given.isdigit() or int(given) >= _ENOUGH_S:
        return ""
    return (
        f"`ray job stop` kills this job after {given} s, before its checkpoint is written: set {JOB_STOP_WAIT}="
        f"{JOB_STOP_WAIT_S} where Ray is started, or in the job's --runtime-env (cluster/runtime_env.yaml has it)"
    )


_ENOUGH_S = 30


def set_ray_environment() -> None:
    """Set what Ray and the workers that it starts read, where the user has not; before Ray is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else each line comes twice
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # how soon a dead worker is seen
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",  # how soon a machine that will be taken away is seen
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # room is looked for before; it can be gone again
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "90",  # how soon a process that hangs is seen
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # training is what the machine is for
    # A training thread's large blocks go back to the system after each step and come again as page faults, unless told.
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a sweep keeps its own records
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # how far a trial is comes without figures
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # a sweep goes on from its own records
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
