"""Credentials are recognised by names, by shapes and in URLs, and what only looks alike is left alone."""

import pytest

from imagegen_dist.credentials import is_secret, password_of, token_kind, without_credentials

LETTERS = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqr"

SECRET_NAMES = [
    "WANDB_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "password",
    "GH_PAT",
    "DB_PASS",
    "DATABASE_URL",
    "DBPASS",
    "PGPASSWORD",
    "MYSQL_PWD",
    "authToken",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "sig",
    "jwt",
    "auth",
    "api_key",
    "apikey",
    "client_secret",
    "SENTRY_DSN",
    "REDIS_URL",
    "MONGO_URI",
    "AZURE_STORAGE_CONNECTION_STRING",
    "RAY_AUTH_TOKEN",
    "SLACK_WEBHOOK_URL",
]
OTHER_NAMES = [
    "RAY_AUTH_TOKEN_PATH",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ACCESS_KEY_ID",
    "RAY_AUTH_MODE",
    "HOME",
    "PWD",
    "OLDPWD",
    "SSH_AUTH_SOCK",
    "TOKENIZERS_PARALLELISM",
    "KEYBOARD_LAYOUT",
    "PYTHONPATH",
    "COMPASS",
    "GIT_ASKPASS",
    "XAUTHORITY",
    "MAX_TOKENS",
    "versionId",
    "download",
    "GOOGLE_APPLICATION_CREDENTIALS",
]
SECRET_URLS = {
    f"https://hf_{LETTERS}@host/x": "https://***@host/x",
    "https://me@host/x": "https://***@host/x",
    "s3://AKIAIOSFODNN7EXAMPLE@bucket/x": "s3://***@bucket/x",
    "simplecache::s3://AKIAIOSFODNN7EXAMPLE@bucket/x": "simplecache::s3://***@bucket/x",
    f"abfs://hf_{LETTERS}@account/x": "abfs://***@account/x",
    "https://host/x?password=p": "https://host/x?***",
    "https://host/x?auth=p": "https://host/x?***",
    "https://host/x?jwt=p": "https://host/x?***",
    "https://host/x?pass%77ord=p": "https://host/x?***",
    "https://host/x?a=1&api-key=p": "https://host/x?***",
    "https://host/x#access_token=p": "https://host/x#***",
    "redis://:p@host/0": "redis://***@host/0",
    "https://me:12@host/x": "https://***@host/x",
}
OTHER_URLS = [
    "s3://bucket/a@b",
    "s3://bucket/k?versionId=3",
    "s3://bucket/v?[1]",
    "hf://gpt2@main/x",
    "hf://datasets/me/set@~parquet/default",
    "sftp://me@host/x",
    "abfs://container@account.dfs.core.windows.net/x",
    "http://127.0.0.1:9000/x@y",
    "https://host/x.safetensors?download=true",
    "memory://a@b/c",
    "/folder/a@b?password=c",
]
TOKENS = {
    f"hf_{LETTERS}": "a Hugging Face token",
    f"wandb_v1_{LETTERS}": "a W&B key",
    f"ghp_{LETTERS}": "a GitHub token",
    f"github_pat_{LETTERS}": "a GitHub token",
    f"glpat-{LETTERS}": "a GitLab token",
    f"xoxb-{LETTERS}": "a Slack token",
    f"AIza{LETTERS[:35]}": "a Google API key",
    f"sk-ant-{LETTERS}": "an OpenAI or Anthropic key",
    f"sk_live_{LETTERS}": "a Stripe key",
    f"npm_{LETTERS[:36]}": "an npm or PyPI token",
    f"AccountName=me;AccountKey={LETTERS}": "an Azure storage key",
    f"eyJ{LETTERS}.eyJ{LETTERS}.{LETTERS}": "a JSON Web Token",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "a private key",
}


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_name_of_a_secret(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_name_of_something_else(name):
    assert not is_secret(name)


@pytest.mark.parametrize(("url", "shown"), SECRET_URLS.items())
def test_a_url_with_a_credential_is_shown_without_it(url, shown):
    assert without_credentials(url) == shown


@pytest.mark.parametrize("url", OTHER_URLS)
def test_a_url_without_a_credential_stays_as_it_is(url):
    assert without_credentials(url) == url


@pytest.mark.parametrize(("text", "kind"), TOKENS.items())
def test_a_token_is_known_by_its_shape_anywhere_in_a_text(text, kind):
    assert token_kind(f"before={text} after") == kind


@pytest.mark.parametrize("text", ["hf_hub", "sk-learn-with-a-long-name-of-a-run", "AKIAIOSFODNN7EXAMPLE", "a" * 40])
def test_what_has_no_tokens_shape(text):
    assert token_kind(text) is None


def test_the_password_of_a_url():
    assert password_of("postgres://me:p%40ss@host/db") == "p@ss"
    assert password_of("http://host:8080/a@b") is None
