"""Writes the files that are generated from the fields of the config: docs/reference/config.md and conf/base.yaml.

python docs/generate.py
"""

from pathlib import Path

from fedvtc.config.reference import base_yaml, config_page
from fedvtc.learning.methods import config_classes

ROOT = Path(__file__).parents[1]


def generated() -> dict[Path, str]:
    """Returns the text of each generated file."""
    return {
        ROOT / "docs/reference/config.md": config_page(config_classes()),
        ROOT / "conf/base.yaml": base_yaml(),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
