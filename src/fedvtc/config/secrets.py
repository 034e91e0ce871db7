"""Which URLs carry a password or token."""

import re
from collections.abc import Iterator
from typing import Any

from fedvtc.config.layers import KeyPath, dotted

_LOGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^\s/?#]*)@", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{\w+\}")


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


def secret_keys(node: Any, path: KeyPath = ()) -> Iterator[str]:
    """The keys, with dots, under which plain values have a URL that carries a secret."""
    if isinstance(node, str) and carries_secret(node):
        yield dotted(path)
    elif isinstance(node, dict | list):
        for step, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from secret_keys(inner, (*path, step))
