import math
from dataclasses import replace

import pytest

from fedvtc.config import Config, MethodConfig, field_docs, load, validate
from fedvtc.config.schema import BackboneShare
from fedvtc.errors import ConfigError
from fedvtc.learning.methods import config_classes
from fedvtc.learning.methods.fedvtc import FedVTCConfig

METHODS = {"fedvtc": MethodConfig}
OWN_IMAGES = ["data.name=npz", "data.path=a.npz"]


def refused(*overrides: str, methods=METHODS) -> str:
    with pytest.raises(ConfigError) as caught:
        load([], overrides, methods=methods)
    return str(caught.value)


def test_the_defaults_have_no_problem():
    assert validate(Config()) == []


RANGES = [
    *((doc.key, doc.range) for doc in field_docs(Config) if doc.range),
    *((doc.key, doc.range) for doc in field_docs(FedVTCConfig, "method") if doc.range),
]


@pytest.mark.parametrize(("key", "words"), RANGES)
def test_a_range_ends_at_its_bounds(key: str, words: str, keys_of):
    for bound in words.split(" and "):
        kind, _, number = bound.rpartition(" ")
        outside = {"at least": -1, "above": 0, "at most": 1, "below": 0}[kind] + float(number)
        inside = {"at least": 0, "above": 0.5, "at most": 0, "below": -0.5}[kind] + float(number)
        # Whole numbers as such, or a key would refuse the decimal point.
        outside, inside = (f"{value:.0f}" if value == int(value) else f"{value}" for value in (outside, inside))
        others = {"partition.images_per_client": ["partition.min_images=1"], "data.pixel_max": OWN_IMAGES}
        more = others.get(key, [])
        assert keys_of(refused(f"{key}={outside}", *more, methods=config_classes())) == [key]
        load([], [f"{key}={inside}", *more], methods=config_classes())


@pytest.mark.parametrize("number", ["0", "-1e-3", ".nan", ".inf"])
@pytest.mark.parametrize("key", ["partition.alpha", "training.optimizer.lr", "placement.cpus_per_actor"])
def test_numbers_above_zero_are_finite(key: str, number: str, keys_of, golden):
    text = refused(f"{key}={number}")
    assert keys_of(text) == [key]
    golden(text)


@pytest.mark.parametrize(
    "override",
    [
        "tracking.wandb.project=team/mine",
        "tracking.wandb.timeout_s=1e10",
        "runtime.stop_timeout_s=1e300",
        "run.name=-mine",
        "run.name=a/b",
        "run.name=..",
        'tracking.wandb.tags=["", a]',
        "run.output_dir=~no_such_user/outputs",
        "run.output_dir=s3://bucket/outputs",
        "checkpoint.dir=~no_such_user/checkpoints",
        'checkpoint.dir=""',
        "checkpoint.dir=simplecache::s3://bucket/fedvtc",
        "checkpoint.dir=memory://a",
        "run.resume=auto",
        "run.participation=1.01",
        "runtime.min_clients=9",
        "training.optimizer.momentum=1",
        "training={steps: 20, epochs: 2}",
        "cluster.address=ray://head:10001",
        "cluster.address=http://head:8265",
        "data.name=minst",
        "data.name=npz",
        "data.name=folder",
        "partition.kind=file",
        "partition.images_per_client=1",
        "placement.clients_per_actor=many",
        "placement.clients_per_actor=0",
        "placement.gpus_per_actor=0.4",
        "placement.gpus_per_actor=1.5",
        "placement={gpus_per_actor: 0, accelerator: cuda}",
        "tracking.trackers=[wandbe]",
        "population.backbones=[]",
        "population.backbones=[{name: resnet8, share: 0.5}, {name: vit_tiny, share: 0.4}]",
        "population.backbones=[{name: resnet8, share: 0}, {name: vit_tiny, share: 1}]",
        "population.backbones=[{name: resnet_8, share: 1}]",
    ],
)
def test_a_value_that_cannot_work_is_one_line(override: str, keys_of, golden):
    text = refused(override)
    key = override.partition("=")[0]
    (named,) = keys_of(text)
    expected = {"data.name=npz": "data.path", "data.name=folder": "data.path", "partition.kind=file": "partition.file"}
    assert named.partition("[")[0] == expected.get(override, key) or named in (
        "placement.gpus_per_actor",
        "training.steps",
    )
    golden(text)


def test_a_folder_with_a_tilde_or_colons_in_its_name_is_accepted():
    config = load([], ["run.output_dir=./~x", "checkpoint.dir=~/a::b"], methods=METHODS)
    assert (config.run.output_dir, config.checkpoint.dir) == ("./~x", "~/a::b")


@pytest.mark.parametrize("gpus", [0, 1, 2, 0.5, 1 / 3, 0.33, 0.25, 0.125, 0.05])
def test_shares_of_a_gpu(gpus: float):
    assert load([], [f"placement.gpus_per_actor={gpus}"], methods=METHODS).placement.gpus_per_actor == gpus


def test_shares_may_miss_one_by_rounding_only():
    def with_shares(*shares: float) -> Config:
        backbones = [BackboneShare("resnet8", share) for share in shares]
        return replace(Config(), population=replace(Config().population, backbones=backbones))

    assert validate(with_shares(1 / 3, 1 / 3, 1 / 3)) == []
    assert validate(with_shares(0.3333, 0.3333, 0.3334)) == []
    assert [problem.key for problem in validate(with_shares(0.33, 0.33, 0.33))] == ["population.backbones"]
    with pytest.raises(ValueError, match="share"):
        BackboneShare("resnet8", share=math.nan)


@pytest.mark.parametrize("key", ["checkpoint.dir", "cluster.address", "data.path"])
@pytest.mark.parametrize("url", ["ftp://me:hunter2@host/x", "https://hunter2@host/x", "${oc.env:PLACE}"])
def test_a_url_with_a_password_is_refused_and_not_shown(key: str, url: str, monkeypatch, keys_of, golden):
    monkeypatch.setenv("PLACE", "ftp://me:hunter2@host/x")
    text = refused(f"{key}={url}")
    assert keys_of(text) == [key]
    assert "hunter2" not in text
    golden(text)


def test_a_url_with_a_user_and_no_password_is_accepted():
    for url in ("ftp://me@host/x", "abfs://container@account/x", "s3://bucket/me@x", "sftp://me@host/x"):
        assert load([], [f"checkpoint.dir={url}"], methods=METHODS).checkpoint.dir == url


def test_a_url_with_a_token_in_a_list_is_refused(keys_of):
    text = refused("tracking.wandb.tags=[plain, 'see https://hunter2@host']")
    assert keys_of(text) == ["tracking.wandb.tags[1]"]
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "override",
    [
        "generator.optimizer.lr=.nan",
        "generator.optimizer.momentum=5",
        "finetune.optimizer.weight_decay=-1",
        "prototype_weight=.inf",
        "statistics.prior_count=.nan",
        "generator.aggregation=exchange",
    ],
)
def test_numbers_of_a_method_and_of_its_optimizers(override, keys_of, golden):
    text = refused(f"method.{override}", methods=config_classes())
    assert keys_of(text) == [f"method.{override.partition('=')[0]}"]
    golden(text)


def test_a_share_below_one_client_in_a_million(keys_of):
    shares = "population.backbones=[{name: cnn_2x8, share: 1.0e-7}, {name: resnet8, share: 0.9999999}]"
    assert keys_of(refused(shares)) == ["population.backbones[0].share"]


def test_a_secret_of_the_environment_is_refused_and_not_shown(monkeypatch, keys_of, golden):
    monkeypatch.setenv("HUB_TOKEN", "0123456789abcdef")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "outputs/token")
    for name, value in (
        ("TOKENIZERS_CACHE", "/scratch/alice7"),
        ("OLD_TOKEN", "/scratch/alice7"),
        ("DB_PASSWORD", "s7"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FSSPEC_FTP_PASSWORD", "anonymous")
    fine = ["run.name=anonymous-s7", "run.output_dir=/scratch/alice7/outputs/token"]
    text = refused("method.label=${oc.env:HUB_TOKEN}", *fine)
    assert keys_of(text) == ["method.label"]
    assert "0123456789abcdef" not in text
    golden(text)


@pytest.mark.parametrize("name", ["KAGGLE_KEY", "MYSQL_PWD", "REDIS_AUTH", "MY_TOKEN_2", "API_KEY1"])
def test_a_variable_with_the_name_of_a_secret_is_refused(monkeypatch, name, keys_of):
    monkeypatch.setenv(name, "0123456789abcdef")
    text = refused("run.name=x-0123456789abcdef")
    assert keys_of(text) == ["run.name"]
    assert f"${name}" in text
    assert "0123456789abcdef" not in text


@pytest.mark.parametrize(
    "name", ["PWD", "OLDPWD", "SORT_KEY", "CACHE_KEY", "PUBLIC_KEY", "SONAR_PROJECT_KEY", "SORT_KEY_2"]
)
def test_a_key_that_is_no_secret_may_stand_in_a_config(monkeypatch, name):
    monkeypatch.setenv(name, "fedvtc-digits")
    assert load([], ["run.name=fedvtc-digits"], methods=METHODS).run.name == "fedvtc-digits"
