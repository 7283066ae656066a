"""Environment variables that Ray and its workers read."""

import json
import os

JOB_STOP_WAIT_S = 300
"""Seconds between SIGTERM and SIGKILL at `ray job stop`; Ray's default of 3 is too short for a checkpoint."""

JOB_STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""The environment variable for it, which Ray reads on the node of the job's driver."""


def short_job_stop() -> str:
    """A warning if `ray job stop` would kill this submitted job before its checkpoint; else ""."""
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
    """Set the defaults of variables that the user has not set; call it before Ray is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else each line is printed twice
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # how soon a dead worker is detected
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",  # how soon a preemption notice is seen
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # resources were found before, and may be gone again
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "90",  # how soon a hanging process is detected
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that still waits when Ray is shut down must not start another one
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # training has priority
    # Otherwise malloc returns large blocks to the system after each step, and they come back as page faults.
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a sweep keeps its own records
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # progress is reported without figures
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # a sweep continues from its own records
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
