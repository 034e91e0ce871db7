import numpy as np

from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.round_tally import RoundTally


def upload(client, num_floats, **scalars):
    payload = {"prototypes": {"mean": np.zeros(num_floats)}, "generator": {"w": np.zeros(3, dtype=np.float32)}}
    return Upload(client, 1, 10, payload, scalars)


def test_a_round_by_hand():
    tally = RoundTally()
    uploads = [
        upload(
            0,
            2,
            **{"loss/train": 1.0, "time/train": 2.0, "cpu/train": 1.5, "flops/train": 8.0, "memory/peak_bytes": 7.0},
        ),
        upload(
            3,
            4,
            **{
                "loss/train": 4.0,
                "time/train": 3.0,
                "cpu/train": 1.0,
                "flops/train": 4.0,
                "memory/peak_bytes": 9.0,
                "loss/kl": 6.0,
            },
        ),
    ]
    assert list(tally.watch(uploads)) == uploads
    assert tally.uploaders == [0, 3]
    tally.add_received(Broadcast(0, {"prototypes": {"mean": np.zeros((2, 5), dtype=np.float32)}}), ["cnn", "vit"])
    assert tally.record() == {
        "clients/participating": 2,
        "loss/train": 2.5,
        "loss/kl": 6.0,
        "time/train": 5.0,
        "cpu/train": 2.5,
        "flops/train": 12.0,
        "memory/peak_bytes": 9.0,
        "bytes/up/prototypes": 2 * 8 + 4 * 8,
        "bytes/up/generator": 24,
        "bytes/down/prototypes": 2 * 40,
    }


def test_uploads_are_counted_one_at_a_time():
    taken = []

    def source():
        for client in range(3):
            taken.append(client)
            yield upload(client, 1)

    watched = RoundTally().watch(source())
    assert next(watched).client == 0
    assert taken == [0]


def test_a_step_without_uploads_counts_its_receivers():
    tally = RoundTally()
    tally.add_scalars({"time/finetune": 1.5})
    tally.add_scalars({"time/finetune": 2.5})
    tally.add_received(Broadcast(3, {"generator": {"w": np.zeros(4, dtype=np.float32)}}), ["cnn"] * 5)
    assert tally.record() == {
        "clients/participating": 5,
        "time/finetune": 4.0,
        "bytes/down/generator": 80,
    }


def test_a_round_without_traffic_has_no_bytes():
    tally = RoundTally()
    list(tally.watch([Upload(0, 1, 10, scalars={"loss/train": 2.0})]))
    assert tally.record() == {"clients/participating": 1, "loss/train": 2.0}


def test_a_group_counts_for_its_receivers_alone():
    broadcast = Broadcast(
        1,
        {"prototypes": {"mean": np.zeros(2)}},
        {"cnn": {"model": {"w": np.zeros(3)}}, "vit": {"model": {"w": np.zeros(5)}}},
    )
    tally = RoundTally()
    tally.add_received(broadcast, ["cnn", "vit", "cnn", "resnet"])
    assert tally.record() == {
        "clients/participating": 4,
        "bytes/down/prototypes": 4 * 16,
        "bytes/down/model": (3 + 5 + 3) * 8,
    }


def test_a_closing_exchange_has_columns_of_its_own():
    tally = RoundTally()
    tally.add_received(Broadcast(3, {"head": {"w": np.zeros(1)}}), ["cnn", "cnn"])
    list(tally.watch([upload(0, 1), upload(1, 1)], "closing/"))
    tally.add_received(Broadcast(4, {"head": {"w": np.zeros(2)}}), ["cnn", "cnn"], "closing/")
    assert tally.record() == {
        "clients/participating": 2,
        "bytes/down/head": 16,
        "bytes/up/closing/prototypes": 16,
        "bytes/up/closing/generator": 24,
        "bytes/down/closing/head": 32,
    }
