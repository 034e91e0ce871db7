import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedvtc.config.checking import checked
from fedvtc.config.schema import BackboneShare, Config, MethodConfig, OptimizerConfig, PopulationConfig
from fedvtc.learning import methods
from fedvtc.learning.exchange.messages import Broadcast, bytes_by_kind, find_non_finite
from fedvtc.learning.methods import Method, Task
from fedvtc.learning.methods.fedproto import FedProtoConfig
from fedvtc.learning.methods.fedvtc import FedVTCConfig, GeneratorConfig
from fedvtc.learning.methods.local import LocalConfig
from fedvtc.learning.server import Server

ROOT = Path(__file__).parents[3]
TASK = Task(num_classes=3, num_channels=1, image_size=8, feature_size=6, seed=0)


def test_the_task_has_the_sizes_of_config_and_data(tiny_config, tiny_dataset):
    found = Task.of(tiny_config(MethodConfig(name="local")), tiny_dataset)
    expected = Task(3, 1, 8, feature_size=6, seed=3, backbones=("cnn_2x8",))
    assert found == replace(expected, num_clients=3, batch_size=4, optimizer=OptimizerConfig(lr=0.01))
    assert (expected.num_rounds, expected.batch_size) == (10, 32)


def test_every_file_or_folder_is_a_method_known_by_its_name(tmp_path, monkeypatch):
    for name in ("mine", "_shared"):
        (tmp_path / f"{name}.py").touch()
    with monkeypatch.context() as patched:
        patched.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
        assert {"fedproto", "fedvtc", "local", "mine"} <= set(methods.names())
        assert "_shared" not in methods.names()
    for name, config_class in methods.config_classes().items():
        config = config_class()
        assert config.name == name
        assert config.problems(Config(population=PopulationConfig(backbones=[BackboneShare("cnn_2x8", 1.0)]))) == []
        method = methods.build(config, TASK)
        assert f"{type(method).__module__}.".startswith(f"fedvtc.learning.methods.{name}.")
        assert method.config is config
        assert (ROOT / f"conf/method/{name}.yaml").is_file()


def test_configs_of_methods_are_read_without_pytorch():
    code = (
        "import sys; from fedvtc.learning import methods; classes = methods.config_classes()\n"
        "print(len(classes), [name for name in ('torch', 'lightning', 'ray') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{len(methods.names())} []"


@pytest.mark.parametrize(
    ("method", "values", "keys"),
    [
        ("fedproto", {"prototype_weight": -1.0}, ["prototype_weight"]),
        ("fedvtc", {"prototype_weight": -0.5}, ["prototype_weight"]),
        (
            "fedvtc",
            {
                "statistics": {"sigma_floor": 0.0, "prior_count": -1.0},
                "generator": {"epochs": 0, "beta": -1.0, "dm_samples": 0},
                "finetune": {"epochs": 0, "images_per_class": 0},
            },
            [
                "statistics.sigma_floor",
                "statistics.prior_count",
                "generator.epochs",
                "generator.beta",
                "generator.dm_samples",
                "finetune.epochs",
                "finetune.images_per_class",
            ],
        ),
    ],
)
def test_all_values_out_of_range_are_reported_at_once(method, values, keys):
    config, problems = checked(methods.config_classes()[method], values)
    assert [problem.key for problem in problems] == keys
    assert config == methods.config_classes()[method]()


def test_exchanged_generators_need_latents_of_clients(golden, keys_of):
    (problem,) = FedVTCConfig(generator=GeneratorConfig(aggregation="exchange")).problems(Config())
    assert keys_of(problem) == ["generator.aggregation"]
    golden(problem)


def test_the_defaults_of_a_method_do_nothing():
    class Quiet(Method[MethodConfig]):
        def client_round(self, client, broadcast):
            raise NotImplementedError

        def server_round(self, state, uploads, server):
            raise NotImplementedError

    quiet, broadcast = Quiet(MethodConfig(), TASK), Broadcast(3)
    assert quiet.start() == ({}, Broadcast())
    assert quiet.last_broadcast({}, broadcast) is broadcast
    assert not any((quiet.has_receive, quiet.has_closing, quiet.has_finish))
    assert quiet.receive(None, broadcast) is quiet.closing_upload(None, broadcast) is None
    assert quiet.prepare(None) is quiet.finish(None, broadcast) is None
    assert quiet.samples(None, broadcast, num_per_class=1) is None
    assert methods.largest_bytes(quiet, 9) == {"up": {}, "down": {}}


@pytest.fixture
def config_of(tiny_fedvtc):
    exchange = {"generator": {"aggregation": "exchange"}, "finetune": {"latents": "client_mixture"}}
    return {
        "local": LocalConfig(),
        "fedproto": FedProtoConfig(),
        "fedvtc": tiny_fedvtc(),
        "fedvtc/exchange": tiny_fedvtc(**exchange),
        "fedvtc/full": tiny_fedvtc(statistics={"covariance": "class_full"}, finetune={"latents": "client_mixture"}),
        "fedvtc/scalar": tiny_fedvtc(statistics={"covariance": "scalar"}, generator={"aggregation": "none"}),
        "fedvtc/class": tiny_fedvtc(
            statistics={"covariance": "class_diagonal"}, finetune={"latents": "client_mixture", "when": "both"}
        ),
        "fedvtc/learned sigma": tiny_fedvtc(generator={"sigma": "learned"}),
        "fedvtc/mixture, never": tiny_fedvtc(finetune={"latents": "client_mixture", "when": "never"}),
        "fedvtc/every round": tiny_fedvtc(finetune={"when": "every_round"}),
        "fedvtc/exchange, every round": tiny_fedvtc(
            generator={"aggregation": "exchange"}, finetune={"latents": "client_mixture", "when": "every_round"}
        ),
        "fedvtc/exchange, class": tiny_fedvtc(
            statistics={"covariance": "class_diagonal"},
            generator={"aggregation": "exchange"},
            finetune={"latents": "client_mixture"},
        ),
        "fedvtc/full, none": tiny_fedvtc(statistics={"covariance": "class_full"}, generator={"aggregation": "none"}),
    }


NAMES = ["local", "fedproto", "fedvtc", "fedvtc/exchange", "fedvtc/full", "fedvtc/scalar", "fedvtc/class"]
SWITCHES = [
    "fedvtc/learned sigma",
    "fedvtc/mixture, never",
    "fedvtc/every round",
    "fedvtc/exchange, every round",
    "fedvtc/exchange, class",
    "fedvtc/full, none",
]
"""Further combinations, for the bytes alone."""


def frozen(value):
    """Converts a state or payload to nested plain values, for a later comparison."""
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tobytes())
    return {name: frozen(part) for name, part in value.items()} if hasattr(value, "items") else value


@pytest.mark.parametrize("name", NAMES)
def test_the_servers_half_is_pure(name, config_of, tiny_federation):
    federation = tiny_federation(config_of[name])
    _, state, broadcast = federation.round()
    uploads = [federation.upload(number, broadcast) for number in range(3)]
    before = frozen(state), frozen(broadcast.payload), [frozen(upload.payload) for upload in uploads]
    first_state, first = federation.method.server_round(state, iter(uploads), Server(0, 2))
    second_state, second = methods.build(config_of[name], federation.method.task).server_round(
        state, iter(uploads), Server(0, 1)
    )
    assert first.round == 2
    assert frozen(first.payload) == frozen(second.payload)
    assert frozen(first_state) == frozen(second_state)
    assert before == (frozen(state), frozen(broadcast.payload), [frozen(upload.payload) for upload in uploads])


@pytest.mark.parametrize("name", NAMES)
def test_the_clients_half_does_not_change_the_broadcast(name, config_of, tiny_federation):
    federation = tiny_federation(config_of[name])
    _, state, broadcast = federation.round()
    last = federation.method.last_broadcast(state, broadcast)
    before = frozen(last.payload)
    for arrays in last.payload.values():
        for array in arrays.values():
            array.flags.writeable = False
    federation.upload(0, broadcast)
    federation.method.finish(federation.clients[0], last)
    assert frozen(last.payload) == before


@pytest.fixture
def measured(tiny_federation):
    """Bytes by kind of each upload and of the last broadcast of one round."""

    def measure(config, indices=None):
        federation = tiny_federation(config, indices=indices)
        uploads, state, broadcast = federation.round()
        last = federation.method.last_broadcast(state, broadcast)
        return federation.method, [bytes_by_kind(upload.payload) for upload in uploads], bytes_by_kind(last.payload)

    return measure


@pytest.mark.parametrize("name", [*NAMES, *SWITCHES])
def test_planned_bytes_are_measured_where_every_client_holds_every_class(name, config_of, measured):
    method, uploads, broadcast = measured(config_of[name], indices=range(6))
    assert methods.largest_bytes(method, 3) == {"up": uploads[0], "down": broadcast}
    assert uploads[0] == uploads[1] == uploads[2]


@pytest.mark.parametrize("name", NAMES)
def test_no_message_is_larger_than_planned(name, config_of, measured):
    method, uploads, broadcast = measured(config_of[name])
    planned = methods.largest_bytes(method, 3)
    # Client 1 holds every class.
    assert uploads[1] == planned["up"]
    for sent in uploads:
        assert sent.keys() == planned["up"].keys()
        assert all(sent[kind] <= planned["up"][kind] for kind in sent)
    assert broadcast.keys() == planned["down"].keys()
    assert all(broadcast[kind] == planned["down"][kind] for kind in broadcast.keys() - {"mixture"})
    # Clients 0 and 2 hold 3 classes together, so 6 rows of at most 9.
    assert broadcast.get("mixture", 0) == planned["down"].get("mixture", 0) * 6 // 9


@pytest.mark.parametrize("name", NAMES)
def test_counted_bytes_are_those_sent_without_names(name, config_of, tiny_federation):
    federation = tiny_federation(config_of[name])
    uploads, state, broadcast = federation.round()
    for payload in (uploads[0].payload, federation.method.last_broadcast(state, broadcast).payload):
        num_arrays = sum(len(arrays) for arrays in payload.values())
        framing = len(pickle.dumps(payload, protocol=5)) - sum(bytes_by_kind(payload).values())
        assert 0 < framing < 200 * (num_arrays + 1)


@pytest.mark.parametrize("name", NAMES)
def test_no_weight_of_a_classifier_is_ever_sent(name, config_of, tiny_federation):
    federation = tiny_federation(config_of[name])
    _, state, broadcast = federation.round()
    uploads, state, broadcast = federation.round(state, broadcast)
    shares = {"prototypes", "covariance", "generator", "generators", "mixture"}
    last = federation.method.last_broadcast(state, broadcast)
    for payload in (*(upload.payload for upload in uploads), last.payload):
        assert set(payload) <= shares
        assert find_non_finite(payload) is None
        sent = [array.ravel() for arrays in payload.values() for array in arrays.values()]
        for client in federation.clients:
            for weight in client.classifier.state_dict().values():
                flat = weight.numpy().ravel()
                assert not any(array.size == flat.size and np.allclose(array, flat) for array in sent)


@pytest.mark.parametrize("name", NAMES)
def test_a_round_depends_on_its_key_and_not_on_the_order_of_clients(name, config_of, tiny_federation):
    forward, backward = tiny_federation(config_of[name]), tiny_federation(config_of[name])
    first = [forward.upload(number, Broadcast()) for number in (0, 1, 2)]
    second = [backward.upload(number, Broadcast()) for number in (2, 1, 0)]
    for upload, other in zip(first, reversed(second), strict=True):
        assert frozen(upload.payload) == frozen(other.payload)
        assert replace(upload, payload={}, scalars={}) == replace(other, payload={}, scalars={})
