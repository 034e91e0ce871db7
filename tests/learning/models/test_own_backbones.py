"""Backbones outside of the package: `package.module:function` and `timm:NAME`."""

import copy
import sys

import pytest
import torch
from torch import nn

from fedvtc.commands.main import main
from fedvtc.errors import ConfigError
from fedvtc.learning.models import build_backbone, flops_of_image
from fedvtc.learning.models.zoo.norm import replace_batch_norms

SOURCE = """
import torch
from torch import nn

def plain(num_channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(num_channels * image_size**2, 5), nn.BatchNorm1d(5), nn.Dropout())

class Counted(nn.Module):
    # A tensor that is no buffer works on no other device than the CPU.
    scale = torch.ones(1)

    def __init__(self, num_channels, image_size):
        super().__init__()
        self.convolution = nn.Conv2d(num_channels, 7, 3, bias=False)

    def forward(self, images):
        return (self.convolution(images) * self.scale).mean(dim=(2, 3))

def fails(num_channels, image_size):
    raise ValueError("no such size")

def number(num_channels, image_size):
    return 3

def maps(num_channels, image_size):
    return nn.Conv2d(num_channels, 7, 3)

def pairs(num_channels, image_size):
    return nn.LSTM(image_size, 4)

class Batch(nn.Module):
    def __init__(self, num_channels, image_size):
        super().__init__()
        self.linear = nn.Linear(image_size**2, 4)

    def forward(self, images):
        features = self.linear(images.flatten(1))
        return features if len(images) == 1 else features.repeat(2, 1)

def doubles(num_channels, image_size):
    return plain(num_channels, image_size).double()

def none(num_channels, image_size):
    class Nothing(nn.Flatten):
        def forward(self, images):
            return super().forward(images)[:, :0]

    return Nothing()

def without_weights(num_channels, image_size):
    return nn.Flatten()

once = plain(1, 8)

def same(num_channels, image_size):
    return once

three = 3
"""
TIMM = [
    "convnext_atto",
    "convnextv2_atto",
    "deit_tiny_patch16_224",
    "densenet121",
    "dla46_c",
    "edgenext_xx_small",
    "efficientnet_b0",
    "efficientnet_lite0",
    "efficientvit_b0",
    "fbnetc_100",
    "ghostnet_050",
    "hardcorenas_a",
    "lcnet_035",
    "mixer_s32_224",
    "mixnet_s",
    "mnasnet_small",
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_050",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "pvt_v2_b0",
    "regnetx_002",
    "regnety_002",
    "repghostnet_050",
    "resnet10t",
    "rexnet_100",
    "semnasnet_075",
    "shvit_s1",
    "tinynet_e",
    "xcit_nano_12_p8_224",
]


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """A working folder with the module own_nets."""
    (tmp_path / "own_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    flops_of_image.cache_clear()
    yield
    sys.modules.pop("own_nets", None)


def build(name, num_channels=1, image_size=8):
    return build_backbone(name, num_channels=num_channels, image_size=image_size, feature_size=6)


def test_the_features_of_an_own_trunk_are_inferred():
    torch.manual_seed(0)
    backbone = build("own_nets:plain", num_channels=3)
    state = torch.get_rng_state()

    assert backbone.projection.in_features == 5
    assert backbone.trunk.training
    # The image that counts the features neither trains a norm nor draws random numbers.
    norm = backbone.trunk[2]
    assert (norm.num_batches_tracked.item(), norm.running_mean.tolist()) == (0, [0.0] * 5)
    torch.manual_seed(0)
    trunk = sys.modules["own_nets"].plain(3, 8)
    projection = nn.Linear(5, 6)
    assert torch.equal(backbone.projection.weight, projection.weight)
    assert torch.equal(backbone.trunk[1].weight, trunk[1].weight)
    assert torch.equal(torch.get_rng_state(), state)
    features_BD = backbone(torch.rand(4, 3, 8, 8))
    torch.testing.assert_close(features_BD.mean(dim=1), torch.zeros(4), atol=1e-5, rtol=0)


def test_the_operations_of_an_own_trunk_are_counted():
    state = torch.get_rng_state()
    flops = flops_of_image("own_nets:Counted", num_channels=1, image_size=8, feature_size=6)

    # 7 kernels of 9 weights at 36 places, then 7 x 6 weights; two operations each.
    assert flops == 2 * (7 * 9 * 36 + 7 * 6)
    assert torch.equal(torch.get_rng_state(), state)


def test_code_that_is_no_trunk_is_refused(golden, keys_of):
    refusals = []
    for name in ("absent", "fails", "number", "maps", "pairs", "three", "Batch", "doubles", "none"):
        with pytest.raises(ConfigError) as refused:
            build(f"own_nets:{name}")
        assert keys_of(refused.value) == ["population.backbones"]
        refusals.append(str(refused.value))
    golden("\n".join(refusals))


def test_a_trunk_without_weights_is_a_trunk():
    assert build("own_nets:without_weights").projection.in_features == 64


def test_two_clients_cannot_have_the_same_weights(golden, keys_of):
    first = build("own_nets:same")
    with pytest.raises(ConfigError) as refused:
        build("own_nets:same")
    assert keys_of(refused.value) == ["population.backbones"]
    golden(refused.value)
    # A copy is a new module.
    assert not hasattr(next(copy.deepcopy(first).parameters()), "_fedvtc_in_use")


def test_a_backbone_that_works_with_content_only_has_no_plan(capsys, golden, keys_of):
    words = ["population.num_clients=2", "placement.pool=inline", "method.name=local"]
    assert main(["plan", *words, "population.backbones=[{name: own_nets:Counted, share: 1}]"]) == 2
    refused = capsys.readouterr().err
    assert keys_of(refused) == ["population.backbones"]
    golden(refused)


def test_norms_of_timm_keep_their_activation():
    class NormAct(nn.BatchNorm2d):
        def __init__(self):
            super().__init__(8)
            self.drop, self.act = nn.Identity(), nn.ReLU()

    module = nn.Sequential(NormAct(), nn.BatchNorm2d(8), nn.BatchNorm1d(8))
    replace_batch_norms(module)

    assert [type(step) for step in module[0]] == [nn.GroupNorm, nn.Identity, nn.ReLU]
    assert [type(step) for step in module[1:]] == [nn.GroupNorm, nn.GroupNorm]


@pytest.mark.slow  # The import of timm takes seconds.
def test_thirty_models_of_timm_learn_at_32_pixels():
    images_NCHW = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert len(TIMM) > 30
    for name in TIMM:
        torch.manual_seed(0)
        backbone = build(f"timm:{name}", image_size=32)

        features_BD = backbone(images_NCHW)

        assert features_BD.shape == (2, 6), name
        assert (features_BD[0] - features_BD[1]).abs().max() > 1e-3, name
        features_BD.mul(torch.linspace(-1, 2, 6)).square().sum().backward()
        for parameter_name, parameter in backbone.named_parameters():
            assert parameter.grad is not None, (name, parameter_name)
            assert torch.isfinite(parameter.grad).all(), (name, parameter_name)
        assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()), name


@pytest.mark.slow
def test_a_model_of_timm_that_cannot_be_built_is_one_line(golden, keys_of):
    refusals = []
    for name, image_size in (("convnext_atto", 28), ("crossvit_tiny_240", 32), ("resnet10tt", 32)):
        with pytest.raises(ConfigError) as refused:
            build(f"timm:{name}", image_size=image_size)
        assert keys_of(refused.value) == ["population.backbones"]
        refusals.append(str(refused.value))
    golden("\n".join(refusals), {sys.modules["timm"].__version__: "VERSION"})


def test_without_timm_the_line_names_the_extra(monkeypatch, golden, keys_of):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError) as refused:
        build("timm:resnet10t")
    assert keys_of(refused.value) == ["population.backbones"]
    golden(refused.value)
