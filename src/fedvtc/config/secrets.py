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
    r"|(^|_)(PAT|PASS|PASSPHRASE|PWD|AUTH|KEY|CONNECTION_STRING))"
    # There may be several.
    r"(_?\d+)?$",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(
    # Folders of the shell, and keys that open nothing.
    r"(OLD)?PWD"
    r"|(.*_)?(ANON|CACHE|FOREIGN|GROUP|OBJECT|PARTITION|PRIMARY|PROJECT|PUB|PUBLIC|PUBLISHABLE|SITE|SORT)_KEY(_?\d+)?",
    re.IGNORECASE,
)
_SWITCH = re.compile(r"|0|1|true|false|yes|no|on|off|none|null", re.IGNORECASE)
MIN_LETTERS = 8
"""Letters of a secret; less stand in texts by chance."""
_PLAIN_VALUE = re.compile(rf".{{0,{MIN_LETTERS - 1}}}|[A-Za-z]*|[~/.].*")
"""Short, one word or a path: such values stand in files for other reasons."""


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return bool(_SECRET.search(name)) and not _NO_SECRET.fullmatch(name)


def is_switch(text: str) -> bool:
    """Whether a text only turns something on or off, as in USE_AUTH=true."""
    return bool(_SWITCH.fullmatch(text))


def secrets_in(text: str) -> list[str]:
    """The variables of the environment that hold a secret, and whose value the text holds too, by name."""
    return sorted(name for name, value in os.environ.items() if value in text and _is_secret(name, value))


def hidden(text: str) -> str:
    """A text with `$NAME` in place of the value of every variable of the environment that holds a secret."""
    secrets = ((name, value) for name, value in os.environ.items() if _is_secret(name, value))
    # The longest first, for one may be a part of another.
    for name, value in sorted(secrets, key=lambda secret: len(secret[1]), reverse=True):
        text = text.replace(value, f"${name}")
        # Of a value that is cut short in a line, the most part is there all the same.
        for end in range(len(value) - 1, MIN_LETTERS - 1, -1):
            text = text.replace(f"{value[:end]}...", f"${name}...")
    return text


def _is_secret(name: str, value: str) -> bool:
    return is_secret_name(name) and not _PLAIN_VALUE.fullmatch(value)


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


def shown(name: str, url: str) -> str:
    """`NAME=URL`, or NAME alone where the URL, which may lack its scheme, carries a secret."""
    return name if carries_secret(url if "://" in url else f"http://{url}") else f"{name}={url}"


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
