"""The memory of methods' own steps, which a plan adds to local training."""

import torch

from fedvtc.learning.methods import Task
from fedvtc.learning.methods.dense import DENSE, DENSEConfig
from fedvtc.learning.methods.fedcvae import FedCVAE, FedCVAEConfig
from fedvtc.learning.methods.gefl import GeFL, GeFLConfig

TASK = Task(num_classes=3, num_channels=1, image_size=8, feature_size=6, seed=0, batch_size=4, backbones=("cnn_2x8",))


def bytes_of(method):
    return method.working_bytes(TASK.new_classifier("cnn_2x8").to("meta"), samples_per_class=2)


def test_a_plan_knows_the_steps_of_methods_that_generate_images():
    classifier = TASK.new_classifier("cnn_2x8")
    moments = 8 * sum(weight.numel() for weight in classifier.parameters())
    fedcvae, dense = bytes_of(FedCVAE(FedCVAEConfig(), TASK)), bytes_of(DENSE(DENSEConfig(), TASK))
    # The sets of 5000 images, and of 200 batches of 64 with an answer of three numbers each.
    assert fedcvae["method.finetune.batch_size"] > 5000 * 64 + moments
    assert dense["method.finetune.batch_size"] > 200 * 64 * (64 + 4 * 3) + moments
    assert fedcvae["method.decoder.batch_size"] > 4 * 32 * 64
    first, mixed = (bytes_of(GeFL(GeFLConfig(order=order), TASK)) for order in ("synthetic_first", "mixed"))
    assert first["method.generator.batch_size"] == mixed["method.generator.batch_size"] > 4 * 64 * 64
    # A mixed step has as many generated images as real ones.
    assert mixed["training.batch_size"] > 1.5 * first["training.batch_size"]
    assert torch.get_default_device().type == "cpu"
