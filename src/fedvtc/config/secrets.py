"""Finds passwords and tokens in config values: in URLs, and as values of secret environment variables."""

import os
import re
from collections.abc import Iterator
from typing import Any

from fedvtc.config.layers import dotted
from fedvtc.config.yaml_text import KeyPath

_LOGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^\s/?#]*)@", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{\w+\}")
_SECRET = re.compile(
    r"(API_?KEY|ACCESS_KEY|TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIALS"
    # Whole words only, because of names such as COMPASS.
    r"|(^|_)(PAT|PASS|PASSPHRASE|PWD|AUTH|KEY|CONNECTION_STRING))"
    # Numbers, as in API_KEY_2.
    r"(_?\d+)?$",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(
    # Folders of the shell, and keys that are not secret.
    r"(OLD)?PWD"
    r"|(.*_)?(ANON|CACHE|FOREIGN|GROUP|OBJECT|PARTITION|PRIMARY|PROJECT|PUB|PUBLIC|PUBLISHABLE|SITE|SORT)_KEY(_?\d+)?",
    re.IGNORECASE,
)
_SWITCH = re.compile(r"|0|1|true|false|yes|no|on|off|none|null", re.IGNORECASE)
MIN_LETTERS = 8
"""Fewest letters of a secret; shorter values occur in texts by chance."""
_PLAIN_VALUE = re.compile(rf".{{0,{MIN_LETTERS - 1}}}|[A-Za-z]*|[~/.].*")
"""Short values, single words and paths, which occur in files for other reasons."""


def is_secret_name(name: str) -> bool:
    """Returns True if a variable with this name holds a secret."""
    return bool(_SECRET.search(name)) and not _NO_SECRET.fullmatch(name)


def is_switch(text: str) -> bool:
    """Returns True if a text is a switch, as in USE_AUTH=true."""
    return bool(_SWITCH.fullmatch(text))


def secrets_in(text: str) -> list[str]:
    """Returns the names of secret environment variables whose value the text contains."""
    return sorted(name for name, value in os.environ.items() if value in text and _is_secret(name, value))


def hidden(text: str) -> str:
    """Returns a text with `$NAME` in place of the value of each secret environment variable."""
    secrets = ((name, value) for name, value in os.environ.items() if _is_secret(name, value))
    # Longest first, because one secret may be part of another.
    for name, value in sorted(secrets, key=lambda secret: len(secret[1]), reverse=True):
        text = text.replace(value, f"${name}")
        # A message may cut a value short and still show most of the secret.
        for end in range(len(value) - 1, MIN_LETTERS - 1, -1):
            text = text.replace(f"{value[:end]}...", f"${name}...")
    return text


def _is_secret(name: str, value: str) -> bool:
    return is_secret_name(name) and not _PLAIN_VALUE.fullmatch(value)


def is_reference(text: str) -> bool:
    """Returns True if a text is a reference to an environment variable, `${NAME}`."""
    return bool(_REFERENCE.fullmatch(text))


def carries_secret(text: str) -> bool:
    """Returns True if a URL in a text has a password, or any login before an HTTP host, which may be a token."""
    for scheme, login in _LOGIN.findall(text):
        user, _, password = login.partition(":")
        secret = password or (user if scheme.lower().endswith(("http", "https")) else "")
        if secret and not is_reference(secret):
            return True
    return False


def shown(name: str, url: str) -> str:
    """Returns `NAME=URL`, or NAME alone if the URL, with or without a scheme, carries a secret."""
    return name if carries_secret(url if "://" in url else f"http://{url}") else f"{name}={url}"


def texts(node: Any, path: KeyPath = ()) -> Iterator[tuple[str, str]]:
    """Yields dotted key and text of each text in nested plain values."""
    if isinstance(node, str):
        yield dotted(path), node
    elif isinstance(node, dict | list):
        for step, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from texts(inner, (*path, step))


def secret_keys(node: Any) -> Iterator[str]:
    """Returns the dotted keys of texts with a URL that carries a secret."""
    return (key for key, text in texts(node) if carries_secret(text))
