"""The measurements and bytes of one round, summed up over clients."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from fedvtc.learning.exchange.messages import Broadcast, Payload, Upload, bytes_by_kind
from fedvtc.learning.metrics import SUMMED


class RoundTally:
    """Sums up the measurements and bytes of one round, while the uploads pass to the method.

    Attributes:
        uploaders: the clients whose uploads have passed, in order.
        waited_cpu_s: CPU seconds of this process until uploads came; clients in this process work in these seconds.
    """

    def __init__(self) -> None:
        self.uploaders: list[int] = []
        self.waited_cpu_s = 0.0
        self._bytes: dict[str, int] = {}
        self._scalars: dict[str, list[float]] = {}
        self._num_clients = 0

    def watch(self, uploads: Iterable[Upload], exchange: str = "") -> Iterator[Upload]:
        """Yields the uploads unchanged, counts the uploads and their bytes, and keeps no upload.

        Args:
            uploads: the uploads of one exchange.
            exchange: prefix of the kinds, such as `closing/`.
        """
        for upload in self._awaited(uploads):
            self.uploaders.append(upload.client)
            self._num_clients = len(self.uploaders)
            self._count(f"bytes/up/{exchange}", upload.payload)
            self.add_scalars(upload.scalars)
            yield upload

    def add_received(self, broadcast: Broadcast, backbones: Sequence[str], exchange: str = "") -> None:
        """Counts the bytes of a broadcast.

        Args:
            broadcast: the broadcast.
            backbones: the backbone of each client that received the broadcast.
            exchange: prefix of the kinds, such as `closing/`.
        """
        self._num_clients = len(backbones)
        for backbone, number in Counter(backbones).items():
            self._count(f"bytes/down/{exchange}", broadcast.seen_by(backbone).payload, number)

    def add_scalars(self, scalars: Mapping[str, float]) -> None:
        """Adds one client's measurements."""
        for name, value in scalars.items():
            self._scalars.setdefault(name, []).append(value)

    def record(self) -> dict[str, float]:
        """Builds the record: losses as means over clients, costs and bytes as sums, memory as the maximum."""
        record: dict[str, float] = {"clients/participating": self._num_clients}
        for name, values in self._scalars.items():
            if name.startswith(SUMMED):
                record[name] = sum(values)
            elif name.startswith("memory/"):
                record[name] = max(values)
            else:
                record[name] = float(np.mean(values))
        return {**record, **self._bytes}

    def _awaited(self, uploads: Iterable[Upload]) -> Iterator[Upload]:
        began_cpu_s = time.process_time()
        for upload in uploads:
            self.waited_cpu_s += time.process_time() - began_cpu_s
            yield upload
            began_cpu_s = time.process_time()
        self.waited_cpu_s += time.process_time() - began_cpu_s

    def _count(self, prefix: str, payload: Payload, times: int = 1) -> None:
        for kind, num_bytes in bytes_by_kind(payload).items():
            self._bytes[f"{prefix}{kind}"] = self._bytes.get(f"{prefix}{kind}", 0) + times * num_bytes
