"""From a config to a run folder: opens what a federation needs, runs it, and closes everything however it ends."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fedvtc.config import to_dict
from fedvtc.config.schema import Config
from fedvtc.data import save_partition
from fedvtc.errors import UserError
from fedvtc.federation import Federation, Population
from fedvtc.runtime import open_pool
from fedvtc.tracking import RunInfo, Tracker
from fedvtc.tracking.console import make_console_tracker
from fedvtc.tracking.files import CsvTracker, JsonlTracker, RunFolder
from fedvtc.tracking.pictures import PictureTracker


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        folder: the run folder.
        record: the last record, of phase `final`.
    """

    folder: Path
    record: Mapping[str, Any]


def run_federation(config: Config, *, plain: bool = False) -> RunSummary:
    """Runs a federation from its config to its run folder.

    Args:
        config: whole and checked.
        plain: one line per round instead of a live table.

    Raises:
        UserError: the data, the cluster or the run folder are not as the config needs them.
        ClientError: a client failed.
    """
    population = Population.of(config)
    folder = RunFolder.create(config.run.output_dir, config.run.name or default_name(config), to_dict(config))
    save_partition(
        folder.path / "partition.npz", [spec.indices_N for spec in population.specs], population.dataset.train.labels_N
    )
    console = make_console_tracker(plain)
    trackers: list[Tracker] = [JsonlTracker(), CsvTracker(), PictureTracker(population.dataset.class_names), console]
    info = RunInfo(
        id=folder.id,
        name=folder.path.name,
        folder=folder.path,
        config=config,
        config_dict=to_dict(config),
        class_counts_KC=population.class_counts_KC,
        backbones=[spec.backbone for spec in population.specs],
    )
    with ExitStack() as stack:
        stack.enter_context(_status_kept(folder))
        pool = stack.enter_context(open_pool(config, population.dataset, population.specs, namespace=folder.id))
        stack.enter_context(_tracking(trackers, info))
        record = Federation(config, population, pool, trackers).run()
    console.summary(record)
    return RunSummary(folder.path, record)


def default_name(config: Config) -> str:
    """Data, partition, method, seed and the time to the second."""
    method = config.method.label or config.method.name
    return _file_name(f"{partition_name(config)}-{method}-s{config.run.seed}-{datetime.now():%Y%m%d-%H%M%S}")


def partition_name(config: Config) -> str:
    """Data and partition, in a word that is fit for a file name."""
    partition = config.partition
    divided = f"{partition.kind}{partition.alpha:g}" if partition.kind in ("dirichlet", "quantity") else partition.kind
    return _file_name(f"{Path(config.data.path).stem if config.data.path else config.data.name}-{divided}")


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-._+" else "-" for letter in text)


@contextmanager
def _status_kept(folder: RunFolder) -> Iterator[None]:
    """run.json says how the block ended; what the user has to mend leaves no folder, so that the name stays free."""
    try:
        yield
    except UserError:
        folder.discard()
        raise
    except BaseException as error:
        folder.set_status("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    folder.set_status("finished")


@contextmanager
def _tracking(trackers: Sequence[Tracker], info: RunInfo) -> Iterator[None]:
    """Starts the trackers, and finishes them however the block ends."""
    with ExitStack() as stack:
        outcome = {"status": "failed"}
        for tracker in trackers:
            tracker.start(info)
            stack.callback(_finish, tracker, outcome)
        try:
            yield
        except KeyboardInterrupt:
            outcome["status"] = "interrupted"
            raise
        outcome["status"] = "finished"


def _finish(tracker: Tracker, outcome: Mapping[str, str]) -> None:
    tracker.finish(outcome["status"])
