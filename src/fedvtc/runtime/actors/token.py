"""The token of a Ray cluster: found for a cluster that asks for a token, made for a cluster that starts here.

Ray would save the token of a cluster that a program starts in ~/.ray/auth_token. That fails if HOME cannot be written,
and a later `ray start --head` would ask every program for the token that was left there.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedvtc.errors import ClusterError

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""Environment variables of Ray."""
DEFAULT_FILE = "~/.ray/auth_token"
ASK_TIMEOUT_S = 5.0
"""Seconds to wait for the answer of a cluster."""


def variables_here() -> dict[str, str]:
    """Returns the environment variables for a cluster that starts here: a new token, unless the user has a token."""
    if _token()[0] or os.environ.get(MODE, "token").lower() != "token":
        return {}
    return {TOKEN: secrets.token_hex(32)}


def variables_for(address: str, source: str) -> dict[str, str]:
    """Returns the environment variables with which this process is let into a cluster.

    Without RAY_AUTH_MODE, Ray sends the token of the user to no cluster that is given by its address, and then waits
    for the refusing cluster. This function asks the cluster first.

    Args:
        address: HOST:PORT of the cluster; another form is not checked.
        source: the config key or variable that sets the address.

    Raises:
        ClusterError: the cluster asks for a token, and the user has none or another one.
    """
    if ":" not in address or _accepts(address, ""):
        return {}
    token, place = _token()
    if not token:
        fix = f"Set {TOKEN_FILE} to a file with the token of the cluster, such as {DEFAULT_FILE} of its head."
        raise ClusterError(f"{source}={address}: the cluster asks for a token. {fix}")
    if os.environ.get(MODE, "token").lower() != "token":
        what = f"the cluster asks for a token, but {MODE}={os.environ[MODE]}"
        raise ClusterError(f"{source}={address}: {what}. Unset {MODE}.")
    if not _accepts(address, token):
        fix = f"Set {TOKEN_FILE} to a file with the token of the cluster."
        raise ClusterError(f"{source}={address}: the cluster refuses the token in {place}. {fix}")
    return {MODE: "token"}


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables until the block ends, and makes Ray read its token variables anew at both ends."""
    before = {name: os.environ.get(name) for name in (MODE, TOKEN, TOKEN_FILE)}
    os.environ.update(variables)
    _read_anew()
    try:
        yield
    finally:
        # Ray sets RAY_AUTH_MODE itself when it starts a cluster.
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_anew()


def _read_anew() -> None:
    # Private, because Ray reads the variables once per process.
    from ray import _raylet

    # Ray has tokens since 2.52.
    if loader := getattr(_raylet, "AuthenticationTokenLoader", None):
        _raylet.Config.initialize("")  # type: ignore[attr-defined]
        loader.instance().reset_cache()


def _token() -> tuple[str, str]:
    """Returns the token that Ray finds, and the place of the token; both empty without a token."""
    if token := os.environ.get(TOKEN, "").strip():
        return token, TOKEN
    file = os.environ.get(TOKEN_FILE) or DEFAULT_FILE
    try:
        token = Path(os.path.expanduser(file)).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        token = ""
    return (token, file) if token else ("", "")


def _accepts(address: str, token: str) -> bool:
    """Returns False if the cluster refuses the token; True for any other answer, which Ray itself reports."""
    import grpc  # type: ignore[import-untyped]

    metadata = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(address.rpartition("://")[2]) as channel:
        ask = channel.unary_unary(
            "/ray.rpc.NodeInfoGcsService/GetClusterId", request_serializer=bytes, response_deserializer=bytes
        )
        try:
            ask(b"", timeout=ASK_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            return bool(error.code() != grpc.StatusCode.UNAUTHENTICATED)
    return True
