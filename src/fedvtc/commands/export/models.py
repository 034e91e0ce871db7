"""Exports the models and generators of clients: weights, a description each, and programs of their architectures.

Shapes: B images of a batch, C classes.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from fedvtc.commands.export.files import file_name, write_json
from fedvtc.errors import count_of
from fedvtc.federation.finished import FinishedRun
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.data.module import to_input, to_tensor
from fedvtc.learning.models.cvae import LabelDecoder
from fedvtc.learning.models.programs import PredictorModule, Program, ProgramError, portable_weights, save_onnx
from fedvtc.storage import versions
from fedvtc.storage.records import client_lines

NUM_CHECKED = 64
"""Test images on which a program must give the scores of the client's model."""
TOLERANCE = 1e-4
"""Largest difference of a score: outside of programs, PyTorch has kernels for transformers that round otherwise."""
NORMALISATION = "float32 pixels x / 127.5 - 1 of uint8 pixels x from 0 to 255, so values from -1 to 1"


class ModelExport:
    """Writes the models of clients into a folder, one client at a time.

    A program serves all clients whose scores it computes from their weights, so an architecture usually has one.

    Args:
        run: the finished run.
        folder: the folder of the export.
        onnx: True also writes each model as ONNX.

    Attributes:
        notes: a line for each part that could not be exported.
        example: name of the files, without suffix, of the first client whose model has a program; empty without one.
    """

    def __init__(self, run: FinishedRun, folder: Path, *, onnx: bool) -> None:
        self._run, self._folder, self._onnx = run, folder, onnx
        self._programs: dict[str, Program] = {}
        self._num_models = self._num_generators = self._num_onnx = 0
        self.notes: list[str] = []
        self.example = ""
        dataset = run.population.dataset
        self._images = to_input(to_tensor(dataset.test.images_NCHW[:NUM_CHECKED])).to(run.device)
        self._rows = {
            int(line.values["client"]): line.values
            for line in client_lines(run.folder.path)
            if line.values is not None and line.values["phase"] == "final"
        }
        for name in ("models", "programs"):
            (folder / name).mkdir()

    def add(self, client: FederatedClient) -> None:
        """Writes one client's model and, if the method attached one, its generator."""
        client.eval()
        name, predictor = next(iter(self._run.predictors(client).items()))
        module = PredictorModule.of(predictor, client.modules).eval()
        stem = f"client_{client.id:04d}"
        program = self._program(client.backbone_name, module, (self._images,))
        if program is not None:
            self.example = self.example or stem
        weights = self._save_weights(self._folder / "models" / f"{stem}.safetensors", module, program)
        about = self._about(client, name, module) | {"weights": weights, "program": program}
        if self._onnx:
            about["onnx"] = self._save_onnx(self._folder / "models" / f"{stem}.onnx", module)
        write_json(self._folder / "models" / f"{stem}.json", about)
        self._num_models += 1
        self._add_generator(client, stem)

    def save(self) -> None:
        """Writes the programs."""
        for name, program in self._programs.items():
            program.save(self._folder / "programs" / name)

    def line(self) -> str:
        """Returns a line about the models."""
        parts = [f"models of {count_of(self._num_models, 'client')}", count_of(len(self._programs), "program")]
        parts += [count_of(self._num_generators, "generator")] if self._num_generators else []
        parts += [count_of(self._num_onnx, "ONNX file")] if self._onnx else []
        return ", ".join(parts)

    def _program(self, kind: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> str | None:
        """Returns the file name of a program that computes what the module computes; traces the module if needed."""
        stem = file_name(kind)
        taken = [name for name in self._programs if re.fullmatch(rf"{re.escape(stem)}(_\d+)?\.pt2", name)]
        for name in taken:
            if _agrees(self._programs[name], module, inputs):
                return name
        try:
            program = Program(module, tuple(tensor[:2] for tensor in inputs))
        except ProgramError as error:
            self._note(f"{kind}: has no program, because torch.export cannot trace it ({error})")
            return None
        if not _agrees(program, module, inputs):
            self._note(f"{kind}: has no program, because the program computes other scores")
            return None
        name = f"{stem}_{len(taken) + 1}.pt2" if taken else f"{stem}.pt2"
        self._programs[name] = program
        return name

    def _save_weights(self, path: Path, module: nn.Module, program: str | None) -> str:
        weights = self._programs[program].weights(module) if program else portable_weights(module)
        # Not `save_file`, whose files only their owner can read.
        path.write_bytes(save(weights))
        return path.name

    def _about(self, client: FederatedClient, predictor: str, module: nn.Module) -> dict[str, Any]:
        run, dataset = self._run, self._run.population.dataset
        row = self._rows.get(client.id, {})
        return {
            "client": client.id,
            "run": {"id": run.folder.id, "name": run.folder.name, "method": run.config.method.name},
            "backbone": client.backbone_name,
            "predictor": predictor,
            "architecture": str(module).splitlines(),
            "input": {
                "shape": ["B", dataset.num_channels, dataset.image_size, dataset.image_size],
                "normalisation": NORMALISATION,
                "scale": 1 / 127.5,
                "offset": -1.0,
            },
            "output": {"shape": ["B", dataset.num_classes], "meaning": "scores; the class of the highest is predicted"},
            "classes": list(dataset.class_names),
            "data": {"name": dataset.name, "hash": run.folder.data_hash},
            "train_images_by_class": run.population.class_counts_KC[client.id].tolist(),
            "test_accuracy": float(row["accuracy"]) if row.get("accuracy") else None,
            "evaluated_with": {
                "batch_size": run.config.evaluate.batch_size,
                "threads": run.config.placement.threads_per_actor,
                "memory_format": "channels_last",
            },
            "versions": versions.installed(),
        }

    def _add_generator(self, client: FederatedClient, stem: str) -> None:
        decoder = getattr(client.modules.get("generator"), "decoder", None)
        if not isinstance(decoder, nn.Module):
            return
        folder = self._folder / "generators"
        folder.mkdir(exist_ok=True)
        inputs, meanings = _latents(decoder, self._run.device)
        program = self._program("generator", decoder.eval(), inputs)
        weights = self._save_weights(folder / f"{stem}.safetensors", decoder, program)
        about = {
            "client": client.id,
            "weights": weights,
            "program": program,
            "architecture": str(decoder).splitlines(),
            "inputs": meanings,
            "output": "images (B, channels, side, side) from -1 to 1; uint8 pixels are round((x + 1) * 127.5)",
        }
        write_json(folder / f"{stem}.json", about)
        self._num_generators += 1

    def _save_onnx(self, path: Path, module: nn.Module) -> str | None:
        try:
            save_onnx(module, (self._images[:2],), ("images",), "scores", path)
        except ProgramError as error:
            self._note(f"{path.stem}: has no ONNX file, because torch.onnx cannot convert it ({error})")
            return None
        self._num_onnx += 1
        return path.name

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)


def _latents(decoder: nn.Module, device: torch.device) -> tuple[tuple[Tensor, ...], list[str]]:
    """Returns example inputs of a decoder, and a description of each."""
    first = next(module for module in decoder.modules() if isinstance(module, nn.Linear))
    size = decoder.latent_size if isinstance(decoder, LabelDecoder) else first.in_features
    latents_BL = torch.randn(NUM_CHECKED, size, generator=torch.Generator().manual_seed(0)).to(device)
    if isinstance(decoder, LabelDecoder):
        labels_B = torch.arange(NUM_CHECKED, device=device) % decoder.num_classes
        return (latents_BL, labels_B), [f"latents (B, {size}) of N(0, I)", "classes (B,), int64"]
    return (latents_BL,), [f"features (B, {size}), drawn from the Gaussians of the classes"]


def _agrees(program: Program, module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Returns True if the program computes the outputs of the module from the module's weights."""
    try:
        runnable = program.with_weights(program.weights(module))
        with torch.inference_mode():
            return bool(torch.allclose(runnable(*inputs), module(*inputs), rtol=TOLERANCE, atol=TOLERANCE))
    except (KeyError, RuntimeError):
        return False
