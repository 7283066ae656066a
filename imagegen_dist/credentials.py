"""Recognise credentials by the names of variables, by the form of tokens, and in URLs.

The list of tokens is our own. The patterns of detect-secrets (1.5.0, 2024) do not include the tokens of Hugging Face
and W&B nor the fine-grained ones of GitHub, take a tenth of a second to import, and are for lines of source code, not
for names of variables and parameters of URLs.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_WORDS = frozenset({"AUTH", "AUTHORIZATION", "BEARER", "COOKIE", "JWT", "PASS", "PAT", "SAS", "SIG"})
_SECRET_ENDS = (
    *("KEY", "KEYS", "SECRET", "SECRETS", "TOKEN", "PASSWORD", "PASSWD", "PASSPHRASE"),
    *("SIGNATURE", "CREDENTIAL", "CREDENTIALS", "DBPASS"),
)
_PLACES = frozenset({"PATH", "FILE", "DIR", "URL", "URI", "ID", "MODE", "SOCK", "HOST", "ARN", "TYPE", "METHOD"})
_CONNECTION = re.compile(
    r"(DATABASE|DB|SQL|SQLALCHEMY|POSTGRES|POSTGRESQL|PG|MYSQL|MARIADB|MONGO|MONGODB|REDIS|AMQP|RABBITMQ|BROKER|CELERY)"
    r"_?(DATABASE_)?(URL|URI)$|DSN$|CONNECTION_?STRING$|WEBHOOK_?URL$",
    re.IGNORECASE,
)

_TOKENS = {
    "an AWS access key": r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{20,}",
    "a W&B key": r"\bwandb_v\d+_\w{20,}",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{22,}",
    "a GitLab token": r"\bglpat-[\w-]{20,}",
    "a Slack token": r"\bxox[abeoprs]-[\w-]{10,}",
    "a Google API key": r"\bAIza[\w-]{35}",
    "an OpenAI or Anthropic key": r"\bsk-ant-[\w-]{20,}|\bsk-[\w-]*T3BlbkFJ[\w-]+",
    "a Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{20,}",
    "an npm or PyPI token": r"\bnpm_[A-Za-z0-9]{36}\b|\bpypi-AgEIcHlwaS5vcmc[\w-]{50,}",
    "an Azure storage key": r"\b(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{20,}",
    "a JSON Web Token": r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
_ANY_TOKEN = re.compile("|".join(f"(?:{shape})" for shape in _TOKENS.values()))

_PASSWORD = re.compile(
    r"://[^/@:]*:(?!\d+(?:[/\s\"']|$))[^@]*@"
)  # a secret may contain slashes; digits before a slash are a port
_USER = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^/@?#\s]+)@", re.IGNORECASE)
_PARAMETER = re.compile(r"[?&#;]([^=&#;?\s]+)=[^&#;\s]")
_QUERY = re.compile(r"[?#]\S*")
# Protocols without users, where the text before an @ is a key. Other protocols have names before it (sftp://user@host,
# abfs://container@account, hf://model@revision), which count only if they have the form of a token.
_WITHOUT_USERS = frozenset({"http", "https", "s3", "s3a", "gs", "gcs", "oss", "oci", "obs", "cos", "r2"})


def is_secret(name: str) -> bool:
    """True if a variable or URL parameter with this name holds a secret, and not the place of one."""
    if is_connection(name):
        return True
    if name == "GOOGLE_APPLICATION_CREDENTIALS":  # the path of a file
        return False
    words = [word.upper() for word in _WORD.findall(name)]
    if not words or words[-1] in _PLACES:
        return False
    secret = any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDS) for word in words)
    return secret or (words[-1] == "PWD" and len(words) > 1)  # PWD alone is the working directory


def is_connection(name: str) -> bool:
    """True for names such as DATABASE_URL, whose values contain a password by convention."""
    return _CONNECTION.search(name) is not None


def token_kind(text: str) -> str | None:
    """The kind of a token in the text, in words such as "a GitHub token"; None if it contains none.

    An AWS access key ID alone is not a secret and does not count.
    """
    for found in _ANY_TOKEN.finditer(text):
        kind = next(kind for kind, shape in _TOKENS.items() if re.match(shape, found[0]))
        if kind != "an AWS access key":
            return kind
    return None


def without_credentials(text: str) -> str:
    """The text with the credentials in its URLs replaced by ***; unchanged if it has none."""
    if "://" not in text or not any(mark in text for mark in "@?#"):
        return text
    shown = _USER.sub(_without_user, _PASSWORD.sub("://***@", text))
    return _QUERY.sub(_without_query, shown)


def password_of(url: str) -> str | None:
    """The decoded password in a URL, or None."""
    found = _PASSWORD.search(url)
    return unquote(found[0][3:-1].partition(":")[2]) if found else None


def _without_user(found: re.Match[str]) -> str:
    protocol, user = found[1], found[2]
    is_key = user != "***" and (protocol.lower() in _WITHOUT_USERS or _ANY_TOKEN.search(unquote(user)))
    return f"{protocol}://***@" if is_key else found[0]


def _without_query(found: re.Match[str]) -> str:
    """Replace a query and what follows it by *** if one of its parameters is a secret."""
    return f"{found[0][0]}***" if any(is_secret(unquote(name)) for name in _PARAMETER.findall(found[0])) else found[0]
