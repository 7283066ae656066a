import json

import pytest

from imagegen_dist.launch.flags import UsageError
from imagegen_dist.launch.secrets import check_secrets, is_secret

CANARY = "canary-0123456789"


@pytest.mark.parametrize(
    "name", ["WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "password"]
)
def test_names_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["RAY_AUTH_TOKEN_PATH", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ACCESS_KEY_ID", "RAY_AUTH_MODE", "HOME"]
)
def test_names_of_their_places(name):
    assert not is_secret(name)


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
