"""Addresses that are not those of a node of a cluster; no test here starts a cluster."""

import pytest
import ray
import ray.util.client

from fedvtc.config.operation import ClusterConfig
from fedvtc.errors import ClusterError
from fedvtc.runtime.actors.cluster import _unanswered, connected, nodes_elsewhere


@pytest.fixture(params=["cluster.address", "RAY_ADDRESS"])
def refused(request, monkeypatch):
    """A function: the error of an address; and the setting that the address comes from."""

    def error_of(address):
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        config = ClusterConfig(address=address)
        if request.param == "RAY_ADDRESS":
            config = ClusterConfig()
            monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError) as raised, connected(config, "none"):
            pass
        return raised.value

    return error_of, request.param


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265", "HTTPS://head"])
def test_an_address_of_no_node_is_refused_and_its_setting_named(refused, golden, keys_of, address):
    error_of, source = refused
    error = error_of(address)

    assert keys_of(error) == [f"{source}={address}"]
    golden(error)


def test_a_token_in_a_url_is_not_shown(refused, golden, keys_of):
    error_of, source = refused
    error = error_of("https://abc123@head:8265")

    assert keys_of(error) == [source]
    assert "abc123" not in str(error)
    golden(error)


def test_an_address_without_a_cluster_is_refused_and_its_setting_named(refused, golden, keys_of):
    error_of, source = refused
    error = error_of("127.0.0.1:9")

    assert keys_of(error) == [f"{source}=127.0.0.1:9"]
    golden(error)


def test_a_cluster_that_does_not_start_here_is_named_without_an_address(monkeypatch, golden, keys_of):
    """The start of Ray is replaced by its failure on a full disk."""

    def fail(**_):
        raise OSError("No space left on device")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", fail)

    with pytest.raises(ClusterError) as raised, connected(ClusterConfig(), "none"):
        pass
    assert keys_of(raised.value) == ["cluster"]
    golden(raised.value)


def test_a_process_that_is_connected_by_ray_client_is_refused(monkeypatch, golden, keys_of):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray.util.client.ray, "is_connected", lambda: True)

    with pytest.raises(ClusterError) as raised, connected(ClusterConfig(), "none"):
        pass
    assert keys_of(raised.value) == ["cluster.address"]
    golden(raised.value)


def test_the_nodes_of_a_dashboard_are_not_asked_for(golden, keys_of):
    with pytest.raises(ClusterError) as raised:
        nodes_elsewhere("http://head:8265")
    assert keys_of(raised.value) == ["RAY_ADDRESS=http://head:8265"]
    golden(raised.value)


def test_the_reason_of_ray_comes_without_the_advice_of_ray(golden):
    reason = (
        "Could not find any running Ray instance. Please specify the one to connect to by setting `--address` flag."
    )
    golden(_unanswered("auto", "RAY_ADDRESS", reason))
