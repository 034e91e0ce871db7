"""Addresses that lead to no node of a cluster; none is started."""

import pytest
import ray

from fedvtc.config.operation import ClusterConfig
from fedvtc.errors import ClusterError
from fedvtc.runtime.actors.cluster import connected, nodes_elsewhere

CLIENT = "is Ray Client, which does not say what nodes have free."
DASHBOARD = "is the URL of a dashboard, which takes jobs only."
FIX = "Set HOST:6379 on a node of the cluster, or send a job with fedvtc submit"
TOO = ", which finds it in RAY_API_SERVER_ADDRESS too"


@pytest.fixture(params=["cluster.address", "RAY_ADDRESS"])
def refused(request, monkeypatch):
    """A function: what is said to an address; and by what it was set."""

    def said(address):
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        config = ClusterConfig(address=address)
        if request.param == "RAY_ADDRESS":
            config = ClusterConfig()
            monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError) as caught, connected(config, "none"):
            pass
        return str(caught.value)

    return said, request.param


@pytest.mark.parametrize(
    ("address", "what", "fix"),
    [
        ("ray://head:10001", CLIENT, FIX),
        ("http://head:8265", DASHBOARD, FIX + TOO),
        ("HTTPS://head", DASHBOARD, FIX + TOO),
    ],
)
def test_an_address_of_no_node_is_refused_by_what_set_it(refused, address, what, fix):
    said, source = refused

    assert said(address) == f"{source}={address}: {what} {fix}."


def test_a_token_in_a_url_is_not_shown(refused):
    said, source = refused

    assert said("https://abc123@head:8265") == f"{source}: {DASHBOARD} {FIX}{TOO}."


def test_a_cluster_that_does_not_answer_is_told_by_what_set_it(refused):
    said, source = refused

    assert said("127.0.0.1:9").startswith(f"{source}=127.0.0.1:9: no Ray cluster answers (")


def test_a_cluster_that_does_not_start_here_is_told_without_an_address(monkeypatch):
    """In place of Ray's start stands what comes of it on a full disk."""

    def full(**_):
        raise OSError("No space left on device")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", full)

    with pytest.raises(ClusterError) as caught, connected(ClusterConfig(), "none"):
        pass
    assert str(caught.value) == "cluster: Ray does not start here (No space left on device). See `fedvtc doctor`."


def test_nobody_visits_a_dashboard():
    with pytest.raises(ClusterError, match=f"^RAY_ADDRESS=http://head:8265: {DASHBOARD}"):
        nodes_elsewhere("http://head:8265")
