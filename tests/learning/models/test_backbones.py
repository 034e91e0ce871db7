import pytest
import torch

from fedvtc.config.names import BACKBONES
from fedvtc.errors import ConfigError
from fedvtc.learning.models import build_backbone, parameter_count
from fedvtc.learning.models.backbones import _TRUNKS
from fedvtc.learning.models.zoo.norm import group_norm

FEATURE_SIZE = 24
IMAGE_SHAPES = [(1, 8), (3, 29), (3, 64)]


@pytest.fixture(autouse=True)
def _one_thread():
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def build(name, num_channels, image_size, seed=0):
    torch.manual_seed(seed)
    return build_backbone(name, num_channels=num_channels, image_size=image_size, feature_size=FEATURE_SIZE)


def draw_images(num_images, num_channels, image_size):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(num_images, num_channels, image_size, image_size, generator=generator) * 2 - 1


def test_config_knows_the_names_of_the_zoo():
    assert tuple(_TRUNKS) == BACKBONES


@pytest.mark.parametrize(("num_channels", "image_size"), IMAGE_SHAPES)
@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_normalised_and_every_parameter_learns(name, num_channels, image_size):
    backbone = build(name, num_channels, image_size)

    features_BD = backbone(draw_images(2, num_channels, image_size))

    assert features_BD.shape == (2, FEATURE_SIZE)
    torch.testing.assert_close(features_BD.mean(dim=1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(features_BD.var(dim=1, correction=0), torch.ones(2), atol=1e-2, rtol=0)
    # Features of different images must differ.
    assert (features_BD[0] - features_BD[1]).abs().max() > 1e-3
    features_BD.mul(torch.linspace(-1, 2, FEATURE_SIZE)).square().sum().backward()
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("name", BACKBONES)
def test_features_of_an_image_do_not_depend_on_batch_or_mode(name):
    backbone = build(name, 1, 8)
    images_NCHW = draw_images(3, 1, 8)

    alone = backbone(images_NCHW[:1])
    in_company = backbone(images_NCHW)[:1]
    backbone.eval()
    with torch.no_grad():
        in_eval = backbone(images_NCHW)

    torch.testing.assert_close(alone, in_company, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(alone, in_eval[:1], atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        assert torch.equal(backbone(images_NCHW), in_eval)


@pytest.mark.parametrize("name", BACKBONES)
def test_training_draws_no_random_numbers(name):
    backbone = build(name, 1, 8)
    before = torch.get_rng_state()

    backbone(draw_images(2, 1, 8)).sum().backward()

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["cnn_2x8", "resnet8", "mobilenet_v3_small", "vit_tiny"])
def test_weights_follow_the_global_seed(name):
    first, again, other = (torch.cat([p.flatten() for p in build(name, 1, 8, s).parameters()]) for s in (5, 5, 6))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["cnn_2x8", "cnn_4x64", "resnet8", "shufflenet_v2", "vit_tiny"])
def test_it_learns_to_tell_stripes_apart(name):
    backbone = build(name, 1, 8)
    head = torch.nn.Linear(FEATURE_SIZE, 2)
    rows_11HW = torch.tensor([1.0, -1.0]).repeat(4).reshape(1, 1, 8, 1).expand(1, 1, 8, 8)
    images_NCHW = torch.cat([rows_11HW, rows_11HW.mT]).repeat(8, 1, 1, 1) + 0.5 * draw_images(16, 1, 8)
    labels_N = torch.tensor([0, 1]).repeat(8)
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=1e-3)

    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(backbone(images_NCHW)), labels_N).backward()
        optimizer.step()

    assert torch.equal(head(backbone(images_NCHW)).argmax(dim=1), labels_N)


def test_cnn_parameters_counted_by_hand():
    # 28 -> 14 -> 7 pixels, averaged down to 4: (9 + 2) 8 + (9 8 + 2) 16 + (16 4 4 + 1) 24.
    assert parameter_count(build("cnn_2x8", 1, 28)) == 88 + 1184 + 6168


def test_frozen_parameters_are_not_counted():
    module = torch.nn.Linear(3, 2)
    module.bias.requires_grad_(False)

    assert parameter_count(module) == 6


def test_groups_keep_at_least_four_channels():
    num_groups = {channels: group_norm(channels).num_groups for channels in (4, 8, 16, 24, 32, 58, 7)}

    assert num_groups == {4: 1, 8: 2, 16: 4, 24: 4, 32: 8, 58: 2, 7: 1}


def test_kernels_of_deep_trunks_start_with_mean_zero():
    trunk = build("mobilenet_v2", 1, 28).trunk

    dense = [m for m in trunk.modules() if isinstance(m, torch.nn.Conv2d) and m.groups == 1]
    assert len(dense) > 30
    assert all(conv.weight.mean(dim=(1, 2, 3)).abs().max() < 1e-6 for conv in dense)


def test_an_unknown_name_is_refused(keys_of, golden):
    with pytest.raises(ConfigError) as caught:
        build("resnet9", 1, 28)
    assert keys_of(caught.value) == ["population.backbones"]
    golden(caught.value)


def test_images_that_are_too_small_are_refused(keys_of, golden):
    with pytest.raises(ConfigError) as caught:
        build("cnn_2x8", 1, 7)
    assert keys_of(caught.value) == ["data.image_size"]
    golden(caught.value)
