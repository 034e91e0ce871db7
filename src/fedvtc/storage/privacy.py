"""Names of the files of `fedvtc privacy` in a run folder, and the measures in them."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PRIVACY_FOLDER = "privacy"
MEASURES_FILE = "privacy.json"


def has_measures(run: Path) -> bool:
    """Returns True if the folder of a run has measures of privacy, damaged or not."""
    return (run / PRIVACY_FOLDER / MEASURES_FILE).is_file()


def read_measures(run: Path) -> dict[str, tuple[float, str]]:
    """Returns value and meaning by name, without values that are not finite; none if the file is missing or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        text = (run / PRIVACY_FOLDER / MEASURES_FILE).read_text(encoding="utf-8")
        measures: Mapping[str, Any] = json.loads(text)["measures"]
        read = {str(name): (one["value"], str(one["meaning"])) for name, one in measures.items()}
        return {
            name: (float(value), meaning)
            for name, (value, meaning) in read.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
    return {}
