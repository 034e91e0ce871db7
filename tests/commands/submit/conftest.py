"""Jobs and servers for tests without a cluster."""

import http.server
import threading

import pytest

from fedvtc.commands.submit import Job


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """Removes the addresses of clusters from the environment."""
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def job():
    """Makes a job; all keys may be replaced."""

    def make(run="mine", run_id="0a1b2c3d", attempt=1, status="SUCCEEDED", **more):
        return Job(f"{run_id}-{attempt}", run, run_id, attempt, "/mnt/outputs", status, **more)

    return make


@pytest.fixture
def serve():
    """Starts a server that answers each request with the same status and body; returns its URL."""
    servers = []

    def start(status, body):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Prints nothing."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        servers.append(server)
        # Polls often, so that the shutdown does not wait.
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
