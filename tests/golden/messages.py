"""Holds the rendered texts of messages against messages.txt, so that tests assert keys and codes only.

.venv/bin/python -m pytest tests/config --update-messages  # writes the texts of these tests anew
"""

import re
from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).with_name("messages.txt")
ROOT = Path(__file__).parents[2]
BETWEEN = "\n--\n"
"""Stands between two texts of one test."""


class Messages:
    """The texts of messages.txt by test.

    Args:
        update: take the texts that tests render instead of comparing them.
    """

    def __init__(self, update: bool) -> None:
        self.update = update
        self._texts = _read(FILE)
        self._seen: set[str] = set()

    def check(self, test: str, text: str) -> None:
        """Compares one text of a test with the file; the first text of a test replaces all of its old ones."""
        if self.update:
            self._texts.setdefault(test, [])
            if test not in self._seen:
                self._texts[test] = []
            self._seen.add(test)
            self._texts[test].append(text)
            return
        known = self._texts.get(test, [])
        assert text in known, f"not in messages.txt (--update-messages writes it):\n{text}\nknown:\n" + "\n".join(known)

    def save(self) -> None:
        """Writes the file, with the tests in order."""
        if not self.update:
            return
        parts = [f"## {test}\n" + BETWEEN.join(texts) + "\n" for test, texts in sorted(self._texts.items()) if texts]
        FILE.write_text("\n".join(parts), encoding="utf-8")


def normal(text: str, replaced: Mapping[str, str]) -> str:
    """A text without what differs from one machine or run to the next.

    Args:
        text: as the program prints it.
        replaced: what is replaced, with what stands in its place.
    """
    for old, new in sorted(replaced.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(old, new)
    text = text.replace(str(ROOT), "ROOT").strip("\n")
    return re.sub(r"(?m)^(#+ )", r"\\\1", text)


def _read(file: Path) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    content = file.read_text(encoding="utf-8") if file.exists() else ""
    for part in re.split(r"(?m)^## ", content)[1:]:
        test, _, lines = part.partition("\n")
        texts.setdefault(test.strip(), []).extend(lines.strip("\n").split(BETWEEN))
    return texts
