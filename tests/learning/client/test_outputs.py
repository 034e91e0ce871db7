"""Outputs of a module for all images of a client, and the operations that they count."""

import pytest
import torch
from torch import nn

from fedvtc.learning.client import outputs as outputs_module
from fedvtc.learning.client.outputs import own_outputs


def test_outputs_are_in_the_order_of_the_images_and_those_of_eval_mode(make_client, monkeypatch):
    monkeypatch.setattr(outputs_module, "_CHUNK", 3)
    client = make_client()
    module = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 2))
    found_NC = own_outputs(client, module)
    assert not module.training
    assert not found_NC.requires_grad
    with torch.no_grad():
        assert torch.allclose(found_NC, module(client.images.inputs(torch.arange(10))), atol=1e-6)


@pytest.mark.parametrize("has_function", [False, True])
def test_modules_of_one_type_count_their_own_operations(make_client, has_function):
    client = make_client()
    modules = [nn.Sequential(nn.Flatten(), nn.Linear(64, size)) for size in (2, 5)]
    with client.phase("calibrate"):
        for module in [*modules, modules[0]]:
            own_outputs(client, module, (lambda images, module=module: 2 * module(images)) if has_function else None)
    # 64 multiplications with their additions for each output; 10 images.
    assert client.scalars["flops/calibrate"] == 10 * 2 * 64 * (2 + 5 + 2)


def test_outputs_outside_of_a_phase_count_nothing(make_client):
    client = make_client()
    assert own_outputs(client, client.classifier).shape == (10, 3)
    assert not client.scalars
