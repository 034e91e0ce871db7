"""Writes the export of a run: every part, and the README that names the parts."""

from collections.abc import Sequence
from pathlib import Path

from fedvtc.commands.export.broadcast import save_broadcast
from fedvtc.commands.export.models import ModelExport
from fedvtc.commands.export.readme import readme
from fedvtc.commands.export.synthetic import save_synthetic
from fedvtc.federation.finished import FinishedRun


def export_run(
    run: FinishedRun, folder: Path, *, clients: Sequence[int] | None = None, images_per_class: int = 100, onnx: bool
) -> list[str]:
    """Writes all parts into an empty folder.

    Args:
        run: the finished run.
        folder: the folder.
        clients: numbers of clients; None exports all clients.
        images_per_class: generated images of each class; 0 leaves the set out.
        onnx: True also writes each model as ONNX.

    Returns:
        Lines for the user: the parts, and a line for each part that could not be exported.

    Raises:
        ConfigError: a client does not exist.
    """
    models = ModelExport(run, folder, onnx=onnx)
    for client in run.clients(clients):
        models.add(client)
    models.save()
    parts = [models.line(), *save_broadcast(run, folder)]
    if images_per_class:
        parts += save_synthetic(run, folder, images_per_class)
    (folder / "README.md").write_text(readme(run, parts, models.notes, models.example), encoding="utf-8")
    return [*(f"  {part}" for part in parts), *models.notes]
