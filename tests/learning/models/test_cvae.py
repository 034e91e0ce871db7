import math

import lightning
import pytest
import torch
from torch.nn import functional

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.models.cvae import ConditionalVAE, kl_to_standard_normal, reconstruction_error, truncated_normal
from fedvtc.learning.models.decoder import build_decoder

SHAPE = {"latent_size": 5, "num_classes": 3, "num_channels": 1, "image_size": 8, "width": 4}


def test_the_kl_divergence_by_hand():
    mean_BL = torch.tensor([[1.0, 0.0]])
    assert kl_to_standard_normal(mean_BL, torch.zeros(1, 2)).item() == 0.5
    # A mean over the batch; the variance 4 adds (4 - 1 - ln 4) / 2.
    both = kl_to_standard_normal(torch.cat([mean_BL, mean_BL]), torch.tensor([[0.0, 0.0], [math.log(4.0), 0.0]]))
    assert both.item() == pytest.approx(0.5 + (3 - math.log(4.0)) / 4)


def test_reconstruction_errors_by_hand():
    # Two images of two pixels; outputs of 0 are grey, 0 in [-1, 1] and 0.5 in [0, 1].
    images, outputs = torch.tensor([[1.0, -1.0], [0.0, 1.0]]).view(2, 1, 1, 2), torch.zeros(2, 1, 1, 2)
    assert reconstruction_error(outputs, images, "squared").item() == 1.5
    assert reconstruction_error(outputs, images, "squared_sigmoid").item() == 1.5 / 4
    assert reconstruction_error(outputs, images, "cross_entropy").item() == pytest.approx(2 * math.log(2))


def test_cross_entropy_is_that_of_the_image_which_the_decoder_returns():
    outputs, images = torch.randn(4, 1, 8, 8), torch.rand(4, 1, 8, 8) * 2 - 1
    probabilities, targets = (outputs.tanh() + 1) / 2, (images + 1) / 2
    expected = functional.binary_cross_entropy(probabilities, targets, reduction="none").flatten(1).sum(1).mean()
    assert reconstruction_error(outputs, images, "cross_entropy").item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("image_size", [4, 7, 8, 28, 30, 32, 64])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_encoder_and_decoder_fit_any_image(image_size, num_channels):
    vae = ConditionalVAE(**(SHAPE | {"image_size": image_size, "num_channels": num_channels, "width": 2}))
    images, labels_B = torch.zeros(2, num_channels, image_size, image_size), torch.tensor([0, 2])
    mean_BL, log_variance_BL = vae.encoder(images, labels_B)
    assert mean_BL.shape == log_variance_BL.shape == (2, 5)
    assert vae.decoder(mean_BL, labels_B).shape == images.shape
    # The decoder is the generator's, with the label beside the latent.
    shapes = [weight.shape for weight in build_decoder(5 + 3, num_channels, image_size, 2).parameters()]
    assert [weight.shape for weight in vae.decoder.parameters()] == shapes


def test_the_label_reaches_the_decoder_and_reaches_the_encoder_if_wanted():
    images, latents_BL = torch.randn(1, 1, 8, 8), torch.randn(1, 5)
    first, second = torch.tensor([0]), torch.tensor([1])
    for seen in (True, False):
        vae = ConditionalVAE(**SHAPE, label_in_encoder=seen)
        assert torch.equal(vae.encoder(images, first)[0], vae.encoder(images, second)[0]) is not seen
        assert not torch.equal(vae.decoder(latents_BL, first), vae.decoder(latents_BL, second))


@pytest.mark.parametrize("kind", ["squared", "cross_entropy", "squared_sigmoid"])
def test_the_loss_is_its_weighted_terms_and_reaches_all_weights(kind):
    vae = ConditionalVAE(**SHAPE, reconstruction=kind, beta=0.3)
    terms = vae.training_step((torch.rand(4, 1, 8, 8) * 2 - 1, torch.tensor([0, 1, 2, 0])), 0)
    assert terms["loss"].item() == pytest.approx((terms["reconstruction"] + 0.3 * terms["kl"]).item())
    terms["loss"].backward()
    assert all(weight.grad.abs().sum() > 0 for weight in vae.parameters())


def test_latents_are_normal_within_the_bound():
    latents_BL = truncated_normal(4000, 3, bound=3.0, device=torch.device("cpu"))
    assert latents_BL.abs().max() <= 3.0
    # Truncation to three standard deviations lowers the deviation to 0.9866.
    assert latents_BL.std().item() == pytest.approx(0.9866, abs=0.03)
    assert truncated_normal(500, 1, bound=0.5, device=torch.device("cpu")).abs().max() <= 0.5


def test_it_learns_to_draw_classes_under_lightnings_trainer(quiet):
    torch.manual_seed(0)
    labels_N = torch.arange(60) % 3
    images = torch.full((60, 1, 8, 8), -0.9)
    for row, label in enumerate(labels_N):
        images[row, 0, 2 * label : 2 * label + 2] = 0.9
    vae = ConditionalVAE(**SHAPE, optimizer=OptimizerConfig(lr=0.02))
    batches = [(images[start : start + 20], labels_N[start : start + 20]) for start in (0, 20, 40)]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    lightning.Trainer(max_epochs=15, **quiet).fit(vae, loader)
    drawn = vae.decoder(torch.randn(3, 5), torch.arange(3)).detach()
    rows_CS = drawn[:, 0].mean(dim=2)
    assert rows_CS.unflatten(1, (4, 2)).mean(dim=2)[:, :3].argmax(dim=1).tolist() == [0, 1, 2]
