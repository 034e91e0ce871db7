"""The manifest of a checkpoint: manifest.json, written last, so that a folder with a manifest was once complete.

A manifest may come from another user. It is read strictly, and no name in it can point outside the folder.
"""

import json
import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, NoReturn, Self, get_args

from fedvtc.errors import CheckpointError

FORMAT = 2
"""Version of the layout; increased when an older fedvtc could not read new checkpoints.

Format 1 holds a shard of every client; format 2 leaves out clients that have never worked."""

MANIFEST_FILE = "manifest.json"
"""File name of the manifest."""

FOLDER_NAME = re.compile(r"round_[0-9]{6,}|final")
"""Names of checkpoint folders."""

SHARD_NAME = re.compile(r"(server|client_(?P<client>[0-9]{4,}))\.pt")
"""Allowed names of the files beside the manifest."""

Phase = Literal["round", "final"]
"""`round`: after a round. `final`: after the work that follows the last round."""


def shard_name(client_id: int) -> str:
    """Returns the file name of a client in a checkpoint."""
    return f"client_{client_id:04d}.pt"


@dataclass(frozen=True)
class Shard:
    """One file of a checkpoint.

    Attributes:
        name: `server.pt` or `client_0003.pt`.
        num_bytes: size of the file.
        sha256: SHA-256 of the content, in hex.
    """

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """One checkpoint.

    Attributes:
        run_id: id of the run.
        round: the last completed round.
        phase: `round`, or `final` once the clients have finished.
        fingerprint: digest of the config keys that must not change on resume.
        accuracy: mean generalization accuracy after the round, in [0, 1]; None if not measured.
        shards: the files beside the manifest.
        versions: versions of the libraries by name; None for a library that is not installed.
        created: time of writing, ISO 8601.
        format: version of the layout.
    """

    run_id: str
    round: int
    phase: Phase
    fingerprint: str
    accuracy: float | None
    shards: tuple[Shard, ...]
    versions: Mapping[str, str | None]
    created: str
    format: int = FORMAT

    @property
    def folder(self) -> str:
        """Name of the checkpoint folder: `round_000010` or `final`."""
        return f"round_{self.round:06d}" if self.phase == "round" else "final"

    def shard(self, name: str) -> Shard | None:
        """Returns the shard of this name; None if the checkpoint has no such shard."""
        return self._shards_by_name.get(name)

    @property
    def clients(self) -> set[int]:
        """Numbers of the clients with a shard: those that had worked. The seed determines all other clients."""
        numbers = (match["client"] for match in map(SHARD_NAME.fullmatch, self._shards_by_name) if match)
        return {int(number) for number in numbers if number is not None}

    def of_client(self, client: int) -> Self:
        """Returns the manifest with the shard of one client alone, which is small enough to send to its process."""
        shard = self.shard(shard_name(client))
        return replace(self, shards=() if shard is None else (shard,))

    @cached_property
    def _shards_by_name(self) -> dict[str, Shard]:
        return {shard.name: shard for shard in self.shards}

    def to_json(self) -> str:
        """Returns the text of manifest.json; an accuracy that is not finite becomes null."""
        accuracy = None if self.accuracy is None or not math.isfinite(self.accuracy) else float(self.accuracy)
        return json.dumps(asdict(replace(self, accuracy=accuracy)), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Self:
        """Reads the text of manifest.json.

        Args:
            text: text or bytes of the file.
            where: name of the file in error messages.

        Raises:
            CheckpointError: if the text is not JSON, a field is missing, unknown or has an impossible value, or a newer
                fedvtc wrote the file.
        """
        try:
            values = json.loads(text, parse_constant=_refuse_constant)
        except ValueError as error:
            raise CheckpointError(f"{where}: is not JSON; it is damaged") from error
        reader = _Reader(values, where)
        if reader.get("format", int) > FORMAT:
            reader.fail("was written by a newer fedvtc, and only that version can read the file")
        reader.refuse_unknown(cls)
        accuracy = reader.get("accuracy", float, type(None))
        versions = reader.get("versions", dict)
        manifest = cls(
            run_id=reader.get("run_id", str),
            round=reader.get("round", int),
            phase=reader.get("phase", str),
            fingerprint=reader.get("fingerprint", str),
            accuracy=accuracy,
            shards=tuple(_read_shard(item, where) for item in reader.get("shards", list)),
            versions=versions,
            created=reader.get("created", str),
            format=reader.get("format", int),
        )
        names = [shard.name for shard in manifest.shards]
        reader.check("format", manifest.format >= 1)
        reader.check("round", manifest.round >= 0)
        reader.check("phase", manifest.phase in get_args(Phase))
        reader.check("accuracy", accuracy is None or math.isfinite(accuracy))
        reader.check("versions", all(isinstance(version, str | None) for version in versions.values()))
        if len(set(names)) < len(names):
            reader.fail("shards names a file twice")
        return manifest


def _read_shard(values: Any, where: str) -> Shard:
    reader = _Reader(values, where)
    reader.refuse_unknown(Shard)
    shard = Shard(reader.get("name", str), reader.get("num_bytes", int), reader.get("sha256", str))
    reader.check("name", SHARD_NAME.fullmatch(shard.name) is not None)
    reader.check("num_bytes", shard.num_bytes >= 0)
    reader.check("sha256", re.fullmatch(r"[0-9a-f]{64}", shard.sha256) is not None)
    return shard


class _Reader:
    """Takes checked values out of a JSON object; errors name the field."""

    def __init__(self, values: Any, where: str) -> None:
        self._values, self._where = values, where
        if type(values) is not dict:
            self.fail(f"holds {reprlib.repr(values)} where an object is expected")

    def get(self, name: str, *types: type) -> Any:
        if name not in self._values:
            self.fail(f"{name} is missing")
        # `isinstance` would take True for an int.
        self.check(name, type(self._values[name]) in types)
        return self._values[name]

    def check(self, name: str, is_right: bool) -> None:
        if not is_right:
            self.fail(f"{name} cannot be {reprlib.repr(self._values[name])}")

    def refuse_unknown(self, schema: type[Manifest] | type[Shard]) -> None:
        for name in self._values.keys() - {key.name for key in fields(schema)}:
            self.fail(f"{reprlib.repr(name)} is unknown")

    def fail(self, fault: str) -> NoReturn:
        raise CheckpointError(f"{self._where}: {fault}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
