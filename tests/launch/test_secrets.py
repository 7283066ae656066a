import json

import pytest

from imagegen_dist.launch.flags import UsageError
from imagegen_dist.launch.secrets import check_secrets

CANARY = "canary-0123456789"


def test_a_secret_among_the_settings_is_refused_without_saying_it():
    settings = {"experiment": {"data": {"url": f"/data/{CANARY}/train"}}}
    with pytest.raises(UsageError, match="the value of WANDB_API_KEY is among the settings") as refused:
        check_secrets(settings, {"WANDB_API_KEY": CANARY})
    assert CANARY not in str(refused.value)
    check_secrets(settings, {"WANDB_API_KEY": "another-secret", "HF_TOKEN": "", "HOME": CANARY})


def test_a_secret_in_what_a_job_is_submitted_with_is_refused_without_saying_it():
    def submitted(**variables):
        return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"env_vars": variables}, "metadata": {}})}

    with pytest.raises(UsageError, match="runtime_env has WANDB_API_KEY") as refused:
        check_secrets({}, submitted(WANDB_API_KEY=CANARY))
    assert CANARY not in str(refused.value)
    check_secrets({}, submitted(WANDB_MODE="offline"))
    check_secrets({}, {"RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": null}'})
