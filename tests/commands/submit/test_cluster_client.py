"""Addresses of clusters, and one-line errors of clusters that do not answer as expected."""

import os
import socket

import pytest

from fedvtc.commands.main import main
from fedvtc.commands.submit.cluster_client import cluster_url, connect, one_line_errors
from fedvtc.errors import ClusterError


def test_a_given_address_overrides_the_environment(monkeypatch):
    assert cluster_url(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://one:8265")
    assert cluster_url(None) == "http://one:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://two:443/")
    assert cluster_url(None) == "https://two:443"
    assert cluster_url("http://three:8265") == "http://three:8265"


@pytest.mark.parametrize(
    "address",
    ["auto", "HEAD:6379", "ray://HEAD:10001", "http://", "http://[HEAD:8265", "http://HEAD:port", "http://HEAD:99999"],
)
def test_an_address_that_is_no_dashboard_is_refused_with_its_source(monkeypatch, golden, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError) as refused:
        cluster_url(None)
    assert str(refused.value).startswith(f"RAY_ADDRESS={address}: ")
    golden(refused.value)


def test_a_malformed_address_exits_with_two(capsys):
    assert main(["list", "--cluster", "--address", "http://[HEAD:8265"]) == 2
    assert capsys.readouterr().err.startswith("fedvtc: --address=http://[HEAD:8265: ")


@pytest.mark.parametrize(
    "url", ["https://me:abc123@head", "http://abc123@head:8265", "me:abc123@head", "http://abc123@["]
)
def test_a_secret_in_the_url_is_refused_and_not_printed(keys_of, golden, url):
    with pytest.raises(ClusterError) as refused:
        cluster_url(url)
    assert keys_of(refused.value) == ["--address"]
    assert "abc123" not in str(refused.value)
    golden(refused.value)


@pytest.mark.parametrize("words", [["submit", "run.output_dir=/mnt/outputs"], ["list", "--cluster"]])
def test_an_absent_cluster_is_one_line_and_exits_with_two(capsys, keys_of, golden, words):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert main([*words, "--address", url]) == 2
    error = capsys.readouterr().err
    assert keys_of(error) == [url]
    golden(error, {url: "URL"})


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"nothing here"),
        (200, b"<html>"),
        (200, b'{"ray_version": "1.2.0"}'),
        (200, b'{"version": "2"}'),
        (401, b"Unauthorized"),
        (403, b"Forbidden"),
    ],
    ids=["not found", "no JSON", "old Ray", "another service", "no token", "wrong token"],
)
def test_a_server_that_is_no_usable_cluster_is_one_line(serve, keys_of, golden, monkeypatch, status, body):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere:8265")
    url = serve(status, body)
    with pytest.raises(ClusterError) as refused:
        connect(url)
    assert keys_of(refused.value) == [url]
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://elsewhere:8265"
    golden(refused.value, {url: "URL"})


def test_the_error_of_ray_for_a_large_folder_is_recognized(keys_of, golden):
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE, upload_package_to_gcs

    with pytest.raises(ClusterError) as refused, one_line_errors("http://head:8265"):
        # Zeros that are never read take no memory.
        upload_package_to_gcs("gcs://_ray_pkg_0.zip", bytes(GCS_STORAGE_MAX_SIZE))
    assert keys_of(refused.value) == ["--working-dir"]
    golden(refused.value)
