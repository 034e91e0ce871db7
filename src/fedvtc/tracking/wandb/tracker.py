"""Logs a federation as one run of Weights & Biases."""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import RunFolderError, reason
from fedvtc.learning.metrics import EVALUATED_CLIENTS
from fedvtc.storage.records import clients_of, records_up_to
from fedvtc.storage.run_files import read_description
from fedvtc.tracking.base import RunInfo, Tracker
from fedvtc.tracking.console import plain_line
from fedvtc.tracking.series import TOTAL_MB, Series, numbers, prefix_of, sample_picture, shows_clients
from fedvtc.tracking.wandb.artifacts import log_artifacts
from fedvtc.tracking.wandb.local_log import drop_empty, logged_values, upload_command
from fedvtc.tracking.wandb.session import close_service, end_service, gone_errors, open_run

if TYPE_CHECKING:
    import wandb

HEADLINES = ("test/accuracy/mean", "test/accuracy/worst10", "test/accuracy/min")
"""Metrics that are also logged under `mb/`, for curves over megabytes: W&B allows one axis per metric."""
BEST = "max/test/accuracy/mean"
LOCAL_S = 30.0
"""Seconds for W&B on this machine, on top of the server's `tracking.wandb.timeout_s`: on a busy machine the import of
wandb and two starts of its service take more than ten seconds, and a short run has ended by then."""
MAX_TITLE_LETTERS = 63
"""Longest title of an alert that W&B accepts."""
KEPT_S = 30.0
"""Seconds for which logged rows stay in memory: a dead service of W&B may not have written the rows of ten seconds."""


class WandbTracker(Tracker):
    """Logs one W&B run per federation; a resumed federation continues the W&B run, with each round once.

    Runs in a thread of its own, because the tracker waits for the server, up to `tracking.wandb.timeout_s` at the start
    and at the end. If the server refuses the run, W&B writes offline files that `wandb sync` uploads later. If W&B's
    service on this machine dies, the tracker starts another service, once, and logs again the rows that the first
    service had not stored.

    Args:
        class_names: class names of the data set, in class order.
        report: gets lines for the user: the run's URL, failures, the upload command.
    """

    def __init__(self, class_names: Sequence[str], report: Callable[[str], None]) -> None:
        self._class_names, self._report = class_names, report
        self._has_begun = self._given_up = self._has_reopened = self._is_sent = False
        self._run: wandb.Run | None = None
        self._explicit: dict[str, str] = {}
        # Calls of the last `KEPT_S` seconds, each with its time and the last round before the call.
        self._kept: deque[tuple[float, int, Callable[[], None]]] = deque()
        # At the end, W&B would wait for the server to accept reports of W&B's own errors.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

    def report(self, text: str) -> None:
        """Reports a line for the user, unless `give_up` was called before."""
        if not self._given_up:
            self._report(text)

    def start(self, run: RunInfo) -> None:
        """Opens the W&B run and logs missing rounds up to the round that the federation resumes after."""
        self._info, self._has_begun = run, True
        self._description = _description(run)
        self._last_round = run.resumed_round or 0
        try:
            self._begin(run)
        except gone_errors() as error:
            self._reopen(error)
        assert self._run is not None
        if self._run.url:
            self.report(f"W&B: {self._run.url}")

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Logs the record as one row, unless W&B has the row from an earlier attempt."""
        self._keep(partial(self._log, record, clients))
        self._last_round = record["round"]
        try:
            self._log(record, clients)
        except gone_errors() as error:
            self._reopen(error)

    def show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        """Adds the images as one picture to the next row."""
        self._keep(partial(self._show_samples, round, images_NCHW, labels_N))
        self._show_samples(round, images_NCHW, labels_N)

    def finish(self, status: str) -> None:
        """Waits for the upload, or reports the command that uploads the rest later."""
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
            self._report_unsent()

    def give_up(self) -> None:
        """Ends W&B's service without waiting for an upload; called from another thread than the tracker's."""
        if self._has_begun:
            self._report_unsent()
        self._given_up = True
        end_service(stores=self._run is not None)

    def _begin(self, run: RunInfo) -> None:
        import wandb

        self._series, self._best = Series(), -1.0
        self._pending: dict[str, Any] = {}
        self._axes: set[str] = set()
        drop_empty(run.folder / "wandb")
        self._run = self._open(run)
        self._logged = {
            phase: set(logged_values(run.folder / "wandb", self._run.id, name))
            for phase, name in (("round", "round"), ("final", "final/round"))
        }
        self._run.define_metric("round")
        self._run.define_metric(TOTAL_MB)
        self._run.define_metric("mb/*", step_metric=TOTAL_MB, step_sync=False)
        self._run.define_metric("final/*", step_metric="final/round", step_sync=False)
        # A chart of one point.
        self._run.define_metric("final/round", hidden=True)
        picture = run.folder / "partition.png"
        if not self._logged["round"] and picture.is_file():
            self._pending["partition"] = wandb.Image(str(picture))
        earlier = records_up_to(run.folder, run.resumed_round or 0)
        rows = clients_of(run.folder, sorted({record["round"] for record in earlier} - self._logged["round"]))
        for record in earlier:
            is_lost = record["round"] not in self._logged["round"]
            if is_lost and (picture := run.folder / "samples" / f"round_{record['round']:06d}.png").is_file():
                self._pending["samples"] = wandb.Image(str(picture), caption=f"round {record['round']}")
            self._log(record, next(rows, []) if is_lost else [])

    def _open(self, run: RunInfo) -> "wandb.Run":
        try:
            try:
                return open_run(run, self._explicit, self._description)
            except gone_errors():
                # W&B may have connected to a service that is dead.
                close_service()
                return open_run(run, self._explicit, self._description)
        except Exception as error:
            if self._given_up:
                raise
            self.report(f"tracking.wandb: W&B cannot open the run and now works offline ({reason(error)}).")
            # The service still holds the id of the run that it could not open.
            close_service()
            self._explicit = {"mode": "offline"}
            return open_run(run, self._explicit, self._description)

    def _reopen(self, error: Exception) -> None:
        """Starts a new service and logs the kept rows again.

        Args:
            error: the error that showed that the service is dead.

        Raises:
            Exception: `error`, if the service was started again before, or `give_up` was called.
        """
        close_service()
        if self._has_reopened or self._given_up:
            raise error
        self._has_reopened = True
        first_round = self._kept[0][1] if self._kept else self._last_round
        self._begin(replace(self._info, resumed_round=first_round))
        for _, _, log_again in self._kept:
            log_again()

    def _keep(self, log_again: Callable[[], None]) -> None:
        now_s = time.monotonic()
        while self._kept and self._kept[0][0] < now_s - KEPT_S:
            self._kept.popleft()
        self._kept.append((now_s, self._last_round, log_again))

    def _log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        assert self._run is not None
        row: dict[str, Any] = self._series.take(record)
        pending, self._pending = self._pending, {}
        # The final evaluation has other clients than the samples of rounds.
        if record["phase"] == "round" or EVALUATED_CLIENTS not in record:
            self._best = max(self._best, record.get("test/accuracy/mean", -1.0))
        if record["round"] in self._logged[record["phase"]]:
            return
        total_mb = row[f"{prefix_of(record)}{TOTAL_MB}"]
        if record["phase"] == "final":
            # The numbers are in the summary only, because W&B would draw a chart of one point for each.
            row = {"final/round": record["round"]}
        else:
            row |= _by_backbone(clients)
            self._define_axes(row)
            row |= {f"mb/{name}": row[name] for name in HEADLINES if name in row}
        if record.get("incidents"):
            row["incidents"] = "\n".join(record["incidents"])
        if clients and shows_clients(self._info.config, record):
            row |= _by_client(clients, prefix_of(record))
        # Without `step`: W&B drops rows whose step is lower than the step before.
        self._run.log(row | pending)
        self._run.write_logs(plain_line(record, self._info.config.run.rounds))
        if self._best >= 0:
            self._run.summary[BEST] = self._best
        if record["phase"] == "final":
            last = {name: value for name, value in numbers(record).items() if name != "round"}
            self._run.summary.update(last | {TOTAL_MB: total_mb})

    def _show_samples(self, round: int, images_NCHW: NDArray[np.uint8], labels_N: Sequence[int]) -> None:
        import wandb

        picture = sample_picture(images_NCHW, labels_N, self._class_names)
        self._pending["samples"] = wandb.Image(picture, caption=f"round {round}")

    def _end(self, status: str) -> None:
        assert self._run is not None
        try:
            if status == "finished" and self._info.config.tracking.wandb.upload_checkpoints:
                self._upload_checkpoint()
            if status == "failed" and self._info.config.tracking.wandb.alerts:
                text = f"The run failed after round {self._last_round}. Run folder: {self._info.folder}"
                self._run.alert(f"{self._info.name} failed"[:MAX_TITLE_LETTERS], text, level="ERROR")
        finally:
            self._run.finish(exit_code=0 if status == "finished" else 1)
            self._is_sent = True

    def _define_axes(self, row: Mapping[str, Any]) -> None:
        """Makes the round the axis of each group of metrics; W&B adds no round, because each row has its round."""
        assert self._run is not None
        for group in {name.partition("/")[0] for name in row if "/" in name} - self._axes:
            self._run.define_metric(f"{group}/*", step_metric="round", step_sync=False)
            self._axes.add(group)

    def _upload_checkpoint(self) -> None:
        assert self._run is not None
        if self._info.config.checkpoint.every is None or self._info.checkpoints is None:
            problem = "no final checkpoint to upload, because checkpoint.every is null."
            self.report(f"tracking.wandb.upload_checkpoints: {problem}")
            return
        log_artifacts(self._run, self._info, self._description)

    def _report_unsent(self) -> None:
        own_id = self._run.id if self._run else ""
        folders = [
            path
            for path in sorted((self._info.folder / "wandb").glob("offline-run-*"))
            if own_id in path.name and not any(path.glob("*.synced"))
        ]
        if not self._is_sent and self._run is not None and not self._run.offline:
            folders.append(self._info.folder / "wandb" / os.path.basename(self._run.settings.sync_dir))
        if not self._is_sent:
            self.report("tracking.wandb: W&B did not upload all values in time.")
        if folders:
            self.report(f"W&B: upload the run with: {upload_command(folders)}")


def _description(run: RunInfo) -> Mapping[str, Any]:
    try:
        return read_description(run.folder)
    except RunFolderError:
        # The run does not depend on the tracker.
        return {}


def _by_backbone(clients: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the mean accuracy of the clients of each backbone; nothing with a single backbone."""
    accuracies: dict[str, list[float]] = {}
    for client in clients:
        accuracies.setdefault(str(client.get("backbone", "")), []).append(client["accuracy"])
    if len(accuracies) < 2:
        return {}
    return {f"backbone/{name}/accuracy": float(np.mean(values)) for name, values in accuracies.items()}


def _by_client(clients: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, Any]:
    import wandb

    columns: list[str | int] = list(dict.fromkeys(name for client in clients for name in client))
    table = wandb.Table(columns=columns, data=[[client.get(str(name)) for name in columns] for client in clients])
    accuracies = wandb.Histogram([client["accuracy"] for client in clients])
    return {f"{prefix}clients/table": table, f"{prefix}clients/accuracy": accuracies}
