"""A job keeps secrets out of what it writes, of its command line and of what Ray shows, and says which, not what."""

import json

import pytest

from imagegen_dist.cli import data as shards
from imagegen_dist.cli import encode, export, sample, serve, sweep
from imagegen_dist.cli.evaluate import command as evaluate
from imagegen_dist.cli.secrets import check_secrets
from imagegen_dist.cli.train import main_gan, main_vae
from imagegen_dist.errors import MISUSED, UsageError

CANARY = "canary-0123456789"
TOKEN = f"hf_{'canary' * 6}"

JOBS = {
    "train_gan": (main_gan, ["digits", "--storage", "runs"]),
    "train_vae": (main_vae, ["digits-vae", "--storage", "runs"]),
    "sweep": (sweep.main, ["r3gan-gamma", "--storage", "runs"]),
    "make_shards": (shards.main, ["pictures", "out"]),
    "sample": (sample.main, ["run", "--grid", "grid.png"]),
    "serve": (serve.main, ["run"]),
    "evaluate": (evaluate.main, ["run"]),
    "export": (export.main, ["run", "out"]),
    "encode": (encode.main, ["run", "out", "--data", "set"]),
}
every_job = pytest.mark.parametrize(("main", "words"), JOBS.values(), ids=JOBS.keys())

SHOWN = {
    "WANDB_API_KEY": CANARY,
    "GH_PAT": CANARY,
    "DB_PASS": "canary",
    "DATABASE_URL": f"postgres://me:{CANARY}@host/db",
    "REDIS_URL": f"redis://:{CANARY}@host",
    "HTTPS_PROXY": f"http://me:{CANARY}@proxy:3128",
    "DATA": f"https://{TOKEN}@host/set",
    "NOTES": f"the token is {TOKEN}",
}
HARMLESS = {
    "WANDB_MODE": "offline",
    "HTTPS_PROXY": "http://proxy:3128",
    "DATABASE_URL": "postgres://host/db",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_API_KEY": "",
    "RAY_AUTH_TOKEN_PATH": "/home/me/.ray/auth_token",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
}


def submitted(**parts):
    return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"metadata": {}, **parts})}


def refusal(document, environment):
    with pytest.raises(UsageError) as refused:
        check_secrets(document, environment)
    assert "\n" not in str(refused.value)
    assert "canary" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("WANDB_API_KEY", CANARY, CANARY),
        ("GH_PAT", CANARY, CANARY),
        ("DB_PASS", f'{CANARY}"quoted"', f'{CANARY}"quoted"'),
        ("DB_PASS", f"'{CANARY}'", CANARY),
        ("DB_PASS", f"{CANARY}\\é", f"{CANARY}\\é"),
        ("DB_PASS", f"{CANARY}/+", f"{CANARY}%2F%2B"),
        ("DATABASE_URL", f"postgres://me:{CANARY}%2F@host/db", f"{CANARY}/"),
        ("https_proxy", f"http://me:{CANARY}@proxy:3128", CANARY),
    ],
)
def test_a_secret_among_the_settings_is_refused_without_saying_it(name, value, secret):
    settings = {"experiment": {"data": [{"url": f"/data/{secret}/train"}]}}
    assert f"the value of {name} is among the settings" in refusal(settings, {name: value})
    check_secrets(settings, {name: "another-secret", "HF_TOKEN": "", "HOME": secret})


@pytest.mark.parametrize("text", [TOKEN, f"https://{TOKEN}@host/x", "https://host/x?password=canary"])
def test_what_has_the_shape_of_a_secret_is_no_setting(text):
    assert "among the settings" in refusal({"experiment": {"evaluation": {"weights": text}}}, {})


@pytest.mark.parametrize(("name", "value"), SHOWN.items())
def test_a_secret_in_what_a_job_is_submitted_with_is_refused_without_saying_it(name, value):
    assert f"runtime_env has {name}" in refusal({}, submitted(runtime_env={"env_vars": {name: value}}))


@pytest.mark.parametrize(
    "parts",
    [
        {"runtime_env": {"pip": [f"git+https://{TOKEN}@github.com/me/private"]}},
        {"runtime_env": {"pip": {"packages": [], "pip_install_options": ["--index-url=https://me:canary@host"]}}},
        {"runtime_env": {"working_dir": "https://host/code.zip?token=canary"}},
        {"metadata": {"note": TOKEN}},
    ],
)
def test_no_part_of_a_job_may_show_a_secret(parts):
    assert f"in the job's {next(iter(parts))}" in refusal({}, submitted(**parts))


def test_what_is_no_secret_may_be_submitted():
    check_secrets({}, submitted(runtime_env={"env_vars": HARMLESS, "working_dir": "gcs://_ray_pkg_0.zip"}))
    check_secrets({}, {"RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": null}'})


@every_job
@pytest.mark.parametrize("where", ["the command line", "a URL", "the environment's value", "runtime_env"])
def test_every_job_refuses_a_secret_in_one_line(tmp_path, monkeypatch, capfd, main, words, where):
    monkeypatch.chdir(tmp_path)
    if where == "runtime_env":
        for name, value in submitted(runtime_env={"env_vars": {"GH_PAT": CANARY}}).items():
            monkeypatch.setenv(name, value)
    elif where == "the environment's value":
        monkeypatch.setenv("DB_PASS", CANARY)
    shown = {"the command line": f"x-{TOKEN}", "a URL": "https://host/x?jwt=canary", "runtime_env": words[0]}
    assert main([shown.get(where, f"/data/{CANARY}"), *words[1:]]) == MISUSED
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "canary" not in said.err
    assert not list(tmp_path.iterdir())
