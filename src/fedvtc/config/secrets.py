"""Which values carry a password or token: in a URL, or out of the environment."""

import os
import re
from collections.abc import Iterator
from typing import Any

from fedvtc.config.layers import KeyPath, dotted

_LOGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^\s/?#]*)@", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{\w+\}")
_SECRET = re.compile(
    r"(API_?KEY|ACCESS_KEY|TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIALS"
    # Whole words only, for there are names such as COMPASS.
    r"|(^|_)(PAT|PASS|PASSPHRASE|PWD|AUTH|KEY|CONNECTION_STRING))$",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(
    # Folders of the shell, and keys that open nothing.
    r"(OLD)?PWD"
    r"|(.*_)?(ANON|CACHE|FOREIGN|GROUP|OBJECT|PARTITION|PRIMARY|PROJECT|PUB|PUBLIC|PUBLISHABLE|SITE|SORT)_KEY",
    re.IGNORECASE,
)
_SWITCH = re.compile(r"|0|1|true|false|yes|no|on|off|none|null", re.IGNORECASE)
_PLAIN_VALUE = re.compile(r".{0,7}|[A-Za-z]*|[~/.].*")
"""Short, one word or a path: such values stand in files for other reasons."""


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return bool(_SECRET.search(name)) and not _NO_SECRET.fullmatch(name)


def is_switch(text: str) -> bool:
    """Whether a text only turns something on or off, as in USE_AUTH=true."""
    return bool(_SWITCH.fullmatch(text))


def secrets_in(text: str) -> list[str]:
    """The variables of the environment that hold a secret, and whose value the text holds too, by name."""
    return sorted(
        name
        for name, value in os.environ.items()
        if value in text and is_secret_name(name) and not _PLAIN_VALUE.fullmatch(value)
    )


def is_reference(text: str) -> bool:
    """Whether a text only names a variable of the environment, as `${NAME}`."""
    return bool(_REFERENCE.fullmatch(text))


def carries_secret(text: str) -> bool:
    """Whether a URL in a text has a password, or before an HTTP host anything at all, which may be a token."""
    for scheme, login in _LOGIN.findall(text):
        user, _, password = login.partition(":")
        secret = password or (user if scheme.lower().endswith(("http", "https")) else "")
        if secret and not is_reference(secret):
            return True
    return False


def texts(node: Any, path: KeyPath = ()) -> Iterator[tuple[str, str]]:
    """The keys, with dots, and the texts under them in plain values."""
    if isinstance(node, str):
        yield dotted(path), node
    elif isinstance(node, dict | list):
        for step, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from texts(inner, (*path, step))


def secret_keys(node: Any) -> Iterator[str]:
    """The keys, with dots, under which plain values have a URL that carries a secret."""
    return (key for key, text in texts(node) if carries_secret(text))
