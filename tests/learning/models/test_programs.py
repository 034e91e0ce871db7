"""Programs compute what their module computes, with the weights of any module of the architecture."""

import pytest
import torch
from torch import nn

from fedvtc.learning.models.programs import PredictorModule, Program, ProgramError, portable_weights, save_onnx


def make_module(seed):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 4, 3), nn.GroupNorm(1, 4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 1, 8, 8)


@pytest.mark.slow
def test_a_program_has_the_scores_of_any_weights_and_leaves_the_module_unchanged(images, tmp_path):
    first, second = make_module(0), make_module(1)
    before = portable_weights(first)

    program = Program(first, (images[:2],))
    program.save(tmp_path / "program.pt2")

    with torch.inference_mode():
        for module in (second, first):
            assert torch.equal(program.with_weights(program.weights(module))(images), module(images))
    assert all(torch.equal(weight, before[name]) for name, weight in portable_weights(first).items())
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    # Without weights all scores are equal.
    assert loaded(images).unique().numel() == 1
    loaded.load_state_dict(program.weights(second))
    with torch.inference_mode():
        assert torch.equal(loaded(images), second(images))


def test_a_predictor_that_uses_two_modules_becomes_one_module(images):
    first, second = make_module(0), make_module(1)

    def predictor(images):
        return first(images) + 2 * second(images)

    module = PredictorModule.of(predictor, {"first": first, "second": second}).eval()

    assert PredictorModule.of(first, {}) is first
    program = Program(module, (images[:2],))
    assert torch.allclose(program.with_weights(program.weights(module))(images), predictor(images))


def test_a_module_whose_steps_depend_on_pixels_has_no_program(images):
    class Fickle(nn.Module):
        def forward(self, images):
            return images if images.sum() > 1 else -images

    with pytest.raises(ProgramError, match=r"\S"):
        Program(Fickle(), (images[:2],))


@pytest.mark.slow
def test_an_onnx_file_has_the_scores_of_its_module(images, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    module = make_module(0)

    save_onnx(module, (images[:2],), ("images",), "scores", tmp_path / "model.onnx")

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (scores,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(scores), module(images).detach(), rtol=1e-4, atol=1e-5)
