import importlib.util
from pathlib import Path

import pytest

from fedvtc.config.reference import base_yaml

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)
GENERATED = generate.generated()


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_generated_file_is_up_to_date(path):
    assert path.read_text(encoding="utf-8") == GENERATED[path], "run python docs/generate.py"


def test_a_key_of_base_yaml_stands_on_one_line():
    lines = base_yaml().splitlines()
    assert [line for line in lines if len(line) > 120] == []
    assert "  rounds: 10  # Number of rounds." in lines
    assert "    name: adam  # `adam` (Kingma and Ba 2015), `adamw` (Loshchilov and Hutter 2019) or `sgd`." in lines
