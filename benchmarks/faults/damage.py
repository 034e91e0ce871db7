"""Damages files like a crash, a bad disk or a full disk; each function returns the name of the damaged file."""

import errno
from pathlib import Path
from random import Random


def truncate(checkpoint: Path, random: Random) -> str:
    """Cuts off the end of a shard."""
    shard = _shard(checkpoint, random)
    content = shard.read_bytes()
    shard.write_bytes(content[: random.randrange(len(content))])
    return shard.name


def flip_a_bit(checkpoint: Path, random: Random) -> str:
    """Flips one bit of a shard."""
    shard = _shard(checkpoint, random)
    content = bytearray(shard.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    shard.write_bytes(content)
    return shard.name


def remove(checkpoint: Path, random: Random) -> str:
    """Deletes a shard."""
    shard = _shard(checkpoint, random)
    shard.unlink()
    return shard.name


def tear_the_manifest(checkpoint: Path, random: Random) -> str:
    """Cuts off the end of the manifest."""
    manifest = checkpoint / "manifest.json"
    content = manifest.read_bytes().rstrip()
    manifest.write_bytes(content[: random.randrange(len(content))])
    return manifest.name


def tear_the_last_line(file: Path, random: Random) -> None:
    """Cuts off the end of a text file inside its last line; returns nothing."""
    content = file.read_bytes().rstrip(b"\n")
    last = content.rpartition(b"\n")[2]
    file.write_bytes(content[: len(content) - random.randrange(len(last))])


def fill(path: Path) -> None:
    """Writes a file until its disk is full; returns nothing."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _shard(checkpoint: Path, random: Random) -> Path:
    return random.choice(sorted(checkpoint.glob("*.pt")))
