"""Forks processes that run fedvtc from one process that has imported PyTorch and Lightning already.

A process that imports them itself spends 4 to 5 CPU seconds on that, and the tests start dozens. A forked process has
an environment, a folder, signals and a process id of its own, runs `fedvtc.__main__.program` to its end, exit hooks
included, and can be killed like any other. Ray is not imported here, because Ray reads the environment on import.

Tests use `Zygote` and `Program`; as a program this file is the process that forks.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
MAX_BYTES = 2**20
"""Size of one request: words, folder and environment."""


class Program:
    """A forked process, with the interface of `subprocess.Popen` as far as tests use it."""

    def __init__(self, connection, stdout, stderr):
        self._connection, self.stdout, self.stderr = connection, stdout, stderr
        self.pid = json.loads(connection.recv(MAX_BYTES))
        self.returncode = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wait()
        self._close()

    def poll(self):
        """The exit code, or None while the process runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(1e-6)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = json.loads(self._connection.recv(MAX_BYTES))
            except TimeoutError:
                raise subprocess.TimeoutExpired("fedvtc", timeout) from None
            self._connection.close()
        return self.returncode

    def communicate(self, timeout=None):
        """Waits for the end of the process; returns the rest of both streams, nothing the second time."""
        if self.stdout.closed:
            return "", ""
        texts = {}
        threads = [
            threading.Thread(target=lambda name=name: texts.update({name: getattr(self, name).read()}), daemon=True)
            for name in ("stdout", "stderr")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
            if thread.is_alive():
                raise subprocess.TimeoutExpired("fedvtc", timeout)
        self.wait(timeout)
        self._close()
        return texts["stdout"], texts["stderr"]

    def send_signal(self, signum):
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def _close(self):
        self.stdout.close()
        self.stderr.close()


class Zygote:
    """The process that forks, as long as the block lasts."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="zygote")
        self._address = str(Path(self._folder.name, "socket"))
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()
        self._folder.cleanup()

    def start(self, *words, cwd=None, env=None, start_new_session=False):
        """Starts `fedvtc WORDS` in a forked process.

        Args:
            words: of the command line.
            cwd: the folder of the process; None takes the present one.
            env: its whole environment; None takes the present one. Folders of PYTHONPATH are added to its path.
            start_new_session: whether it leads a process group of its own, as a program of a terminal does.
        """
        request = {
            "words": [str(word) for word in words],
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "session": start_new_session,
        }
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(self._address)
        pipes = [os.pipe(), os.pipe()]
        socket.send_fds(connection, [json.dumps(request).encode()], [write for _, write in pipes])
        for _, write in pipes:
            os.close(write)
        return Program(connection, *(os.fdopen(read) for read, _ in pipes))

    def run(self, *words, timeout=300, **options):
        """Runs `fedvtc WORDS`; returns the process with its `returncode`, `stdout` and `stderr`."""
        process = self.start(*words, **options)
        try:
            out, err = process.communicate(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(words, process.returncode, out, err)


def _serve(address):
    """Forks for each request; returns the request in the forked process, and None when the tests are over."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    # The tests may have been killed, and then nobody else ends their programs.
                    for pid, _ in (known.data for known in selector.get_map().values() if known.data):
                        os.kill(pid, signal.SIGKILL)
                    return None
                if key.fileobj is not listener:
                    # A process has ended.
                    pid, connection = key.data
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    # The test may have gone.
                    with contextlib.suppress(OSError):
                        connection.send(json.dumps(code).encode())
                    connection.close()
                    continue
                connection, _ = listener.accept()
                message, streams, *_ = socket.recv_fds(connection, MAX_BYTES, 2)
                pid = os.fork()
                if pid == 0:
                    for number, stream in enumerate(streams, start=1):
                        os.dup2(stream, number)
                    return json.loads(message)
                for stream in streams:
                    os.close(stream)
                connection.send(json.dumps(pid).encode())
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))


def _become(request):
    """Makes the forked process what a started one would be."""
    if request["session"]:
        os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.closerange(3, 256)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["fedvtc", *request["words"]]
    sys.path[:1] = [request["cwd"], *filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))]
    gc.enable()


def _main():
    gc.disable()
    from fedvtc.runtime.heavy_imports import fast_imports

    with fast_imports():
        import fedvtc.commands.run
        import fedvtc.federation.launch
        import fedvtc.learning.client.client
        import fedvtc.learning.methods.fedvtc.steps
        import fedvtc.runtime.inline_pool  # noqa: F401
    from fedvtc.__main__ import program

    # Else the first collection of each forked process would copy the memory of all these objects.
    gc.freeze()
    assert "lightning" in sys.modules
    assert "ray" not in sys.modules
    request = _serve(sys.argv[1])
    if request is None:
        # Objects that stay until the end would be reported as leaks.
        gc.unfreeze()
        return
    _become(request)
    program()


if __name__ == "__main__":
    _main()
