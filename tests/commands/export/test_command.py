"""`fedvtc export` of runs whose config.yaml sets keys of another machine."""

from pathlib import Path

import pytest

from fedvtc.commands.main import main


@pytest.fixture(scope="module")
def gpu_run(two_clients, tiny_words):
    """The folder of a finished run whose config.yaml reserves a share of a GPU."""
    assert main(["run", *two_clients, "--plain", *tiny_words]) == 0
    output_dir = next(word for word in tiny_words if word.startswith("run.output_dir="))
    folder = Path(output_dir.partition("=")[2]) / "mine"
    config = folder / "config.yaml"
    text = config.read_text()
    assert "gpus_per_actor: null" in text
    config.write_text(text.replace("gpus_per_actor: null", "gpus_per_actor: 0.25"))
    return folder


@pytest.mark.slow
def test_a_run_that_shared_gpus_is_exported_on_a_cpu(gpu_run, tmp_path):
    assert main(["export", str(gpu_run), "-o", str(tmp_path / "exported"), "--images", "0"]) == 0

    assert any((tmp_path / "exported").iterdir())


@pytest.mark.slow
def test_a_run_that_shared_gpus_is_evaluated_on_a_cpu(gpu_run):
    assert main(["evaluate", str(gpu_run), "placement.accelerator=cpu"]) == 0
