"""A federation as one run of Weights & Biases."""

import os
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.storage.records import records_up_to
from fedvtc.tracking.base import RunInfo, Tracker
from fedvtc.tracking.isolation import reason
from fedvtc.tracking.series import TOTAL_MB, Series, numbers, prefix_of, sample_picture, shows_clients
from fedvtc.tracking.wandb.local_log import drop_empty, logged_values
from fedvtc.tracking.wandb.session import close_service, gone_errors, open_run

if TYPE_CHECKING:
    import wandb

HEADLINES = ("test/accuracy/mean", "test/accuracy/worst10", "test/accuracy/min")
"""Metrics that are logged a second time, under `mb/`, for curves over megabytes: W&B allows a metric one axis only."""
BEST = "max/test/accuracy/mean"
LOCAL_S = 10.0
"""Seconds that W&B's own service on this machine gets besides those of the server."""
HELD_S = 30.0
"""Seconds for which what was logged can be logged again: W&B's service writes its file about every ten."""


class WandbTracker(Tracker):
    """One W&B run per federation; a resumed federation continues it, each round in it once.

    Made for a thread of its own: it waits for the server, up to `tracking.wandb.timeout_s` at the start and in the
    end. Where the server does not take the run, it goes on in a folder that `wandb sync` uploads. Where W&B's service
    on this machine is ended by somebody, another one is started, once, and told again what the first had not written.

    Args:
        class_names: of the data set, in class order.
        report: gets a line that the user should know: where the run is, or what is left to do.
    """

    def __init__(self, class_names: Sequence[str], report: Callable[[str], None]) -> None:
        self._class_names, self._report = class_names, report
        self._has_begun = self._given_up = self._has_reopened = self._is_sent = False
        self._run: wandb.Run | None = None
        self._explicit: dict[str, str] = {}
        # With the round that had been logged before.
        self._held: deque[tuple[float, int, Callable[[], None]]] = deque()
        # The reports of its own errors would be waited for in the end, for as long as the server does not answer.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

    def tell(self, text: str) -> None:
        """Reports a line, unless it was given up: what fails then is nobody's business any more."""
        if not self._given_up:
            self._report(text)

    def start(self, run: RunInfo) -> None:
        """Opens the run, and brings it up to the round after which the federation goes on."""
        self._info, self._has_begun = run, True
        self._last_round = run.resumed_round or 0
        try:
            self._begin(run)
        except gone_errors() as error:
            self._reopen(error)
        assert self._run is not None
        if self._run.url:
            self.tell(f"W&B: {self._run.url}")

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Logs one row, unless an earlier attempt did."""
        self._hold(partial(self._log, record, clients))
        self._last_round = record["round"]
        try:
            self._log(record, clients)
        except gone_errors() as error:
            self._reopen(error)

    def show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        """Adds a picture to the next row."""
        self._hold(partial(self._show_samples, round, images_NCHW, labels_N))
        self._show_samples(round, images_NCHW, labels_N)

    def finish(self, status: str) -> None:
        """Uploads what is left, or says how to do that later."""
        if self._run is None:
            return
        try:
            try:
                self._end(status)
            except gone_errors() as error:
                self._reopen(error)
                self._end(status)
        except TimeoutError:
            pass
        finally:
            self._tell_unsent()

    def give_up(self) -> None:
        """Leaves W&B's service to itself; for another thread than the one that waits for it."""
        if self._has_begun:
            self._tell_unsent()
        self._given_up = True
        # A program's end would wait for the service, unless it is being torn down already. It ends with its parent.
        teardown = threading.Thread(target=close_service, name="wandb-teardown", daemon=True)
        teardown.start()
        teardown.join(timeout=1.0)

    def _begin(self, run: RunInfo) -> None:
        import wandb

        self._series, self._best = Series(), -1.0
        self._pending: dict[str, Any] = {}
        self._axes: set[str] = set()
        folder = run.folder / "wandb"
        drop_empty(folder)
        self._run = self._open(run)
        self._logged = {
            phase: set(logged_values(folder, self._run.id, name))
            for phase, name in (("round", "round"), ("final", "final/round"))
        }
        self._run.define_metric("round")
        self._run.define_metric(TOTAL_MB)
        self._run.define_metric("mb/*", step_metric=TOTAL_MB, step_sync=False)
        self._run.define_metric("final/*", step_metric="final/round", step_sync=False)
        picture = run.folder / "partition.png"
        if not self._logged["round"] and picture.is_file():
            self._pending["partition"] = wandb.Image(str(picture))
        for record in records_up_to(run.folder, run.resumed_round or 0):
            self._log(record, [])

    def _open(self, run: RunInfo) -> "wandb.Run":
        try:
            try:
                return open_run(run, self._explicit)
            except gone_errors():
                # W&B may have taken a service that has ended, and not noticed it yet.
                close_service()
                return open_run(run, self._explicit)
        except Exception as error:
            self.tell(f"tracking.wandb: the run is kept in its folder only, as if mode=offline ({reason(error)}).")
            # Its service still holds the id of the run that it could not open.
            close_service()
            self._explicit = {"mode": "offline"}
            return open_run(run, self._explicit)

    def _reopen(self, error: Exception) -> None:
        """Goes on with another service, after an error that says that the one so far is gone.

        Raises:
            Exception: the same error, where that was done before, or the tracker was given up.
        """
        close_service()
        if self._has_reopened or self._given_up:
            raise error
        self._has_reopened = True
        first_round = self._held[0][1] if self._held else self._last_round
        self._begin(replace(self._info, resumed_round=first_round))
        for _, _, log_again in self._held:
            log_again()

    def _hold(self, log_again: Callable[[], None]) -> None:
        now_s = time.monotonic()
        while self._held and self._held[0][0] < now_s - HELD_S:
            self._held.popleft()
        self._held.append((now_s, self._last_round, log_again))

    def _log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        assert self._run is not None
        row: dict[str, Any] = self._series.take(record)
        pending, self._pending = self._pending, {}
        if record["phase"] == "round":
            self._best = max(self._best, record.get("test/accuracy/mean", -1.0))
        if record["round"] in self._logged[record["phase"]]:
            return
        if record["phase"] == "round":
            self._define_axes(row)
            row |= {f"mb/{name}": row[name] for name in HEADLINES if name in row}
        if record.get("incidents"):
            row["incidents"] = "\n".join(record["incidents"])
        if clients and shows_clients(self._info.config, record):
            row |= _by_client(clients, prefix_of(record))
        # Never with a step: W&B drops what comes with a lower one than before.
        self._run.log(row | pending)
        if self._best >= 0:
            self._run.summary[BEST] = self._best
        if record["phase"] == "final":
            last = {name: value for name, value in numbers(record).items() if name != "round"}
            self._run.summary.update(last | {TOTAL_MB: row[f"final/{TOTAL_MB}"]})

    def _show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        import wandb

        picture = sample_picture(images_NCHW, labels_N, self._class_names)
        self._pending["samples"] = wandb.Image(picture, caption=f"round {round}")

    def _end(self, status: str) -> None:
        assert self._run is not None
        try:
            if status == "finished" and self._info.config.tracking.wandb.upload_checkpoints:
                self._upload_checkpoint()
        finally:
            self._run.finish(exit_code=0 if status == "finished" else 1)
            self._is_sent = True

    def _define_axes(self, row: Mapping[str, Any]) -> None:
        """Makes the round the axis of every group of metrics; its numbers are always there, so none is filled in."""
        assert self._run is not None
        for group in {name.partition("/")[0] for name in row if "/" in name} - self._axes:
            self._run.define_metric(f"{group}/*", step_metric="round", step_sync=False)
            self._axes.add(group)

    def _upload_checkpoint(self) -> None:
        import wandb

        assert self._run is not None
        if self._info.config.checkpoint.every is None or self._info.checkpoints is None:
            self.tell("tracking.wandb.upload_checkpoints: there is no final checkpoint, as checkpoint.every is null.")
            return
        place = f"{self._info.checkpoints}/final"
        artifact = wandb.Artifact(f"clients-{self._info.id}", type="model")
        if "://" in place:
            artifact.add_reference(place, checksum=False)
        else:
            artifact.add_dir(place)
        self._run.log_artifact(artifact)

    def _tell_unsent(self) -> None:
        folders = [
            path
            for path in sorted((self._info.folder / "wandb").glob("offline-run-*"))
            if not any(path.glob("*.synced"))
        ]
        if not self._is_sent and self._run is not None and not self._run.offline:
            folders.append(self._info.folder / "wandb" / os.path.basename(self._run.settings.sync_dir))
        if not self._is_sent:
            self.tell("tracking.wandb: W&B did not take everything in time.")
        if folders:
            self.tell(f"W&B: upload the run with: wandb sync {' '.join(shlex.quote(str(path)) for path in folders)}")


def _by_client(clients: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, Any]:
    import wandb

    columns: list[str | int] = list(dict.fromkeys(name for client in clients for name in client))
    table = wandb.Table(columns=columns, data=[[client.get(str(name)) for name in columns] for client in clients])
    accuracies = wandb.Histogram([client["accuracy"] for client in clients])
    return {f"{prefix}clients/table": table, f"{prefix}clients/accuracy": accuracies}
