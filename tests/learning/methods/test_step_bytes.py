"""The memory of methods' own steps, which a plan adds to local training."""

import torch

from fedvtc.learning.methods import Task
from fedvtc.learning.methods.dense import DENSE, DENSEConfig
from fedvtc.learning.methods.fedcvae import FedCVAE, FedCVAEConfig
from fedvtc.learning.methods.fedvtc import FedVTCConfig, FinetuneConfig, GeneratorConfig
from fedvtc.learning.methods.fedvtc.images import LazyImages
from fedvtc.learning.methods.fedvtc.method import FedVTC
from fedvtc.learning.methods.fedvtc.passes import _sharpened
from fedvtc.learning.methods.gefl import GeFL, GeFLConfig
from fedvtc.learning.models.live_bytes import peak_bytes

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


def test_a_plan_of_fedvtc_knows_the_memory_of_sharpening():
    num_images, image_bytes = 3 * 200, 4 * 8 * 8
    images = torch.empty(num_images, 1, 8, 8, device="meta")
    made = LazyImages(torch.empty(num_images, dtype=torch.int64, device="meta"), lambda index_M: images[index_M])
    needed = peak_bytes(lambda: _sharpened(made, 1.0).images(torch.arange(num_images)))
    # A small network, so that the images outweigh its steps.
    generator = GeneratorConfig(width=1, gamma=0.0)
    plain, sharp = (
        bytes_of(FedVTC(FedVTCConfig(generator=generator, finetune=FinetuneConfig(sharpening=most)), TASK))
        for most in (0.0, 1.0)
    )
    assert plain["method.finetune.batch_size"] < needed <= sharp["method.finetune.batch_size"]
    assert needed >= 4 * num_images * image_bytes
