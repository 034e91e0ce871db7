"""The memory of a step, worked out by hand."""

import torch
from torch import nn

from fedvtc.learning.models.live_bytes import peak_bytes


def test_the_peak_is_of_tensors_that_exist_at_the_same_time():
    def step():
        first = torch.empty(1000)
        second = first + 1  # 8000 bytes
        del first
        third = second.view(10, 100)  # a view, without memory of its own
        del second
        return third + torch.empty(100)  # 4000 + 400 + 4000 bytes

    assert peak_bytes(step) == 8400


def test_training_keeps_activations_and_evaluation_drops_them():
    layers = nn.Sequential(*(nn.Sigmoid() for _ in range(8))).to("meta")

    def forward(grad):
        with torch.set_grad_enabled(grad):
            images = torch.empty(250, requires_grad=grad)
            layers(images).sum()

    # Eight results and the images; or two results, the one before and the one after a layer.
    assert peak_bytes(lambda: forward(True)) >= 9 * 1000
    assert peak_bytes(lambda: forward(False)) <= 3 * 1000
