"""What Ray reads from the environment."""

import os


def set_ray_environment() -> None:
    """Settings that Ray reads from the environment, where the user has not set them; before Ray is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else each line comes twice
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a dead worker is seen
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "300",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # training is what the machine is for
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
