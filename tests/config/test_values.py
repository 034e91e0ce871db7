import math
from dataclasses import replace

import pytest

from fedvtc.config import Config, MethodConfig, load, validate
from fedvtc.config.schema import BackboneShare
from fedvtc.errors import ConfigError
from fedvtc.learning.methods import config_classes


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load([], overrides, methods={"fedvtc": MethodConfig})
    return list(caught.value.problems)


def test_the_defaults_have_no_problem():
    assert validate(Config()) == []


@pytest.mark.parametrize(
    "key",
    [
        "run.rounds",
        "data.image_size",
        "partition.classes_per_client",
        "partition.min_images",
        "partition.max_redraws",
        "partition.images_per_client",
        "population.num_clients",
        "training.epochs",
        "training.batch_size",
        "evaluate.every",
        "evaluate.batch_size",
        "evaluate.samples_every",
        "evaluate.samples_per_class",
        "placement.threads_per_actor",
        "cluster.num_cpus",
    ],
)
def test_what_must_be_at_least_one(key: str):
    assert problems(f"{key}=0") == [f"{key}: must be at least 1, not 0 (command line)."]
    extra = ["partition.min_images=1"] if key == "partition.images_per_client" else []
    load([], [f"{key}=1", *extra], methods={"fedvtc": MethodConfig})


@pytest.mark.parametrize("key", ["partition.alpha", "training.optimizer.lr", "placement.cpus_per_actor"])
def test_what_must_be_above_zero(key: str):
    assert problems(f"{key}=0") == [f"{key}: must be above 0, not 0.0 (command line)."]
    assert problems(f"{key}=-1e-3") == [f"{key}: must be above 0, not -0.001 (command line)."]
    assert problems(f"{key}=.nan") == [f"{key}: must be above 0, not nan (command line)."]
    assert problems(f"{key}=.inf") == [f"{key}: must be above 0, not inf (command line)."]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "tracking.wandb.project=team/mine",
            "tracking.wandb.project: must be 1 to 128 letters without any of / \\ # ? % :, not 'team/mine' (command "
            "line). The team has a key of its own, tracking.wandb.entity.",
        ),
        (
            "tracking.wandb.timeout_s=1e10",
            "tracking.wandb.timeout_s: must be above 0 and at most 1e9, not 10000000000.0 (command line).",
        ),
        (
            "runtime.stop_timeout_s=1e300",
            "runtime.stop_timeout_s: must be at least 0 and at most 1e9, not 1e+300 (command line).",
        ),
        (
            r'run.name="a\0b"',
            r"run.name: must be the name of one folder, not 'a\x00b' (command line)."
            " Set run.output_dir for the folder around it.",
        ),
        (
            "run.name=-mine",
            "run.name: must begin with another letter than -, not '-mine' (command line). "
            "A command would take it for an option.",
        ),
        ('tracking.wandb.tags=["", a]', "tracking.wandb.tags[0]: must be at least 1 letter (command line)."),
        (
            "run.output_dir=~no_such_user/outputs",
            "run.output_dir: '~no_such_user' is the home of no user here (command line). Write the folder out.",
        ),
        (
            "checkpoint.dir=~no_such_user/checkpoints",
            "checkpoint.dir: '~no_such_user' is the home of no user here (command line). Write the folder out.",
        ),
        (
            'checkpoint.dir=""',
            "checkpoint.dir: must not be empty (command line). Set null for a folder in that of the run.",
        ),
        (
            "checkpoint.dir=simplecache::s3://bucket/fedvtc",
            "checkpoint.dir: is a URL that chains several with :: (command line). "
            "Name one file system, such as s3://bucket/fedvtc.",
        ),
        ("population.feature_size=1", "population.feature_size: must be at least 2, not 1 (command line)."),
        ("run.participation=0", "run.participation: must be above 0 and at most 1, not 0.0 (command line)."),
        ("run.participation=1.01", "run.participation: must be above 0 and at most 1, not 1.01 (command line)."),
        (
            "run.name=a/b",
            "run.name: must be the name of one folder, not 'a/b' (command line). "
            "Set run.output_dir for the folder around it.",
        ),
        (
            "training.optimizer.momentum=1",
            "training.optimizer.momentum: must be at least 0 and below 1, not 1.0 (command line).",
        ),
        (
            "training.optimizer.weight_decay=-1",
            "training.optimizer.weight_decay: must be at least 0, not -1.0 (command line).",
        ),
        ("cluster.num_gpus=-1", "cluster.num_gpus: must be at least 0, not -1 (command line)."),
        (
            "cluster.address=ray://head:10001",
            "cluster.address: ray:// is Ray Client, through which no run can place its actors (command line). "
            "Set HOST:6379 on a node of the cluster, or send a job from elsewhere with fedvtc submit.",
        ),
        (
            "cluster.address=http://head:8265",
            "cluster.address: is the URL of a dashboard, which takes jobs only (command line). "
            "Set HOST:6379 on a node of the cluster, or send a job from elsewhere with fedvtc submit.",
        ),
        ("data.name=minst", "data.name: unknown data set 'minst' (command line). Did you mean mnist?"),
        ("data.name=npz", "data.path: missing, and data.name is npz. Set data.path=FILE.npz."),
        ("data.name=folder", "data.path: missing, and data.name is folder. Set data.path=FOLDER."),
        (
            "partition.kind=file",
            "partition.file: missing, and partition.kind is file. Set partition.file=RUN_FOLDER/partition.npz.",
        ),
        (
            "partition.images_per_client=1",
            "partition.images_per_client: must be at least partition.min_images = 2, not 1 (command line).",
        ),
        (
            "placement.clients_per_actor=many",
            "placement.clients_per_actor: must be auto or a number of at least 1, not 'many' (command line).",
        ),
        (
            "placement.clients_per_actor=0",
            "placement.clients_per_actor: must be auto or a number of at least 1, not 0 (command line).",
        ),
        ("placement.gpus_per_actor=-1", "placement.gpus_per_actor: must be at least 0, not -1.0 (command line)."),
        (
            "placement.gpus_per_actor=0.4",
            "placement.gpus_per_actor: must be 0, a whole number, or 1/k for k actors on one GPU, "
            "not 0.4 (command line). Set 0.5 (2 to a GPU) or 0.3333 (3 to a GPU).",
        ),
        (
            "placement.gpus_per_actor=1.5",
            "placement.gpus_per_actor: must be 0, a whole number, or 1/k for k actors on one GPU, "
            "not 1.5 (command line). Set 1 or 2.",
        ),
        (
            "population.backbones=[]",
            "population.backbones: no backbone (command line). "
            "Give at least one, such as [{name: cnn_2x16, share: 1}].",
        ),
        (
            "population.backbones=[{name: resnet8, share: 0.5}, {name: vit_tiny, share: 0.4}]",
            "population.backbones: the shares must add up to 1, not 0.9 (command line). Equal shares for 2 are 0.5.",
        ),
        (
            "population.backbones=[{name: resnet8, share: 0}, {name: vit_tiny, share: 1}]",
            "population.backbones[0].share: must be above 0, not 0.0 (command line).",
        ),
        (
            "population.backbones=[{name: resnet_8, share: 1}]",
            "population.backbones[0].name: unknown backbone 'resnet_8' (command line). Did you mean resnet8?",
        ),
    ],
)
def test_a_wrong_value_is_one_line(override: str, line: str):
    assert problems(override) == [line]


@pytest.mark.parametrize("key", ["run.output_dir", "checkpoint.dir", "data.root", "data.path", "partition.file"])
@pytest.mark.parametrize("path", ["a\\0b", "~\\0b"])
def test_no_path_holds_a_nul(key: str, path: str):
    assert problems(f'{key}="{path}"') == [f"{key}: holds a NUL, the one letter that is in no path (command line)."]


def test_a_home_and_a_folder_with_odd_letters_are_taken():
    config = load([], ["run.output_dir=./~x", "checkpoint.dir=~/a::b"], methods={"fedvtc": MethodConfig})
    assert (config.run.output_dir, config.checkpoint.dir) == ("./~x", "~/a::b")


@pytest.mark.parametrize("gpus", [0, 1, 2, 0.5, 1 / 3, 0.33, 0.25, 0.125, 0.05])
def test_shares_of_a_gpu(gpus: float):
    assert (
        load([], [f"placement.gpus_per_actor={gpus}"], methods={"fedvtc": MethodConfig}).placement.gpus_per_actor
        == gpus
    )


def test_shares_may_miss_one_by_rounding_only():
    def with_shares(*shares: float) -> Config:
        backbones = [BackboneShare("resnet8", share) for share in shares]
        return replace(Config(), population=replace(Config().population, backbones=backbones))

    assert validate(with_shares(1 / 3, 1 / 3, 1 / 3)) == []
    assert validate(with_shares(0.3333, 0.3333, 0.3334)) == []
    assert [problem.key for problem in validate(with_shares(0.33, 0.33, 0.33))] == ["population.backbones"]
    assert len(validate(with_shares(math.nan))) == 2


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        (
            "checkpoint.dir",
            "Leave it out of the URL, and set FSSPEC_PROTOCOL_PASSWORD, such as FSSPEC_FTP_PASSWORD, on every node.",
        ),
        ("cluster.address", "Leave it out of the URL."),
        ("data.path", "Leave it out of the URL."),
    ],
)
def test_a_url_with_a_password_is_not_taken_nor_shown(key: str, fix: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PLACE", "ftp://me:hunter2@host/x")
    what = "the URL carries a password or token, which would get into files and logs"
    for value in ("ftp://me:hunter2@host/x", "https://hunter2@host/x", "${oc.env:PLACE}"):
        assert problems(f"{key}={value}") == [f"{key}: {what} (command line). {fix}"]


def test_a_url_that_only_names_a_user_is_taken():
    for url in ("ftp://me@host/x", "abfs://container@account/x", "s3://bucket/me@x", "sftp://me@host/x"):
        assert load([], [f"checkpoint.dir={url}"], methods={"fedvtc": MethodConfig}).checkpoint.dir == url


def test_a_list_of_texts_is_looked_through():
    (line,) = problems("tracking.wandb.tags=[plain, 'see https://hunter2@host']")
    assert line.startswith("tracking.wandb.tags[1]: the URL carries")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("generator.optimizer.lr=.nan", "generator.optimizer.lr: must be above 0, not nan"),
        ("generator.optimizer.momentum=5", "generator.optimizer.momentum: must be at least 0 and below 1, not 5.0"),
        ("finetune.optimizer.weight_decay=-1", "finetune.optimizer.weight_decay: must be at least 0, not -1.0"),
        ("prototype_weight=.inf", "prototype_weight: must be a finite number, not inf"),
        ("statistics.prior_count=.nan", "statistics.prior_count: must be a finite number, not nan"),
    ],
)
def test_numbers_of_a_method_and_of_all_its_optimizers(override, line):
    with pytest.raises(ConfigError) as caught:
        load([], [f"method.{override}"], methods=config_classes())
    assert list(caught.value.problems) == [f"method.{line} (command line)."]


def test_a_share_that_cannot_be_dealt_out():
    shares = "population.backbones=[{name: cnn_2x8, share: 1.0e-7}, {name: resnet8, share: 0.9999999}]"
    (line,) = problems(shares)
    assert line == "population.backbones[0].share: must be at least 1e-06, not 1e-07 (command line)."


def test_what_the_environment_keeps_to_itself_stays_out_of_the_config(monkeypatch):
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
    assert problems("method.label=${oc.env:HUB_TOKEN}", *fine) == [
        "method.label: holds the value of $HUB_TOKEN, which would get into files and logs (command line). Leave it out."
    ]


@pytest.mark.parametrize("name", ["KAGGLE_KEY", "MYSQL_PWD", "REDIS_AUTH", "MY_TOKEN_2", "API_KEY1"])
def test_a_key_by_any_name_stays_out_of_the_config(monkeypatch, name):
    monkeypatch.setenv(name, "0123456789abcdef")
    (line,) = problems("run.name=x-0123456789abcdef")
    assert line.startswith(f"run.name: holds the value of ${name}, which would get into files and logs")


@pytest.mark.parametrize(
    "name", ["PWD", "OLDPWD", "SORT_KEY", "CACHE_KEY", "PUBLIC_KEY", "SONAR_PROJECT_KEY", "SORT_KEY_2"]
)
def test_a_key_that_opens_nothing_may_stand_in_a_config(monkeypatch, name):
    monkeypatch.setenv(name, "fedvtc-digits")
    assert problems("run.name=fedvtc-digits", "run.rounds=0") == [
        "run.rounds: must be at least 1, not 0 (command line)."
    ]
