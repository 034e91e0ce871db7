"""Files of an export that are not tensors."""

import json
import re
from pathlib import Path


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file that people can read."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def file_name(text: str) -> str:
    """Returns a text with `_` in place of characters that a file name may not hold everywhere."""
    return re.sub(r"[^\w.-]+", "_", text).strip(".") or "_"
