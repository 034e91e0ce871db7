import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvtc.errors import CheckpointError
from fedvtc.storage.checkpoints import Manifest, Shard

HASH = "0123456789abcdef" * 4
WHOLE = Manifest(
    run_id="3f2a",
    round=10,
    phase="round",
    fingerprint="f00d",
    accuracy=0.75,
    shards=(Shard("server.pt", 12, HASH), Shard("client_0007.pt", 0, HASH), Shard("client_12345.pt", 9, HASH)),
    versions={"torch": "2.15.0", "ray": None},
    created="2025-01-02T03:04:05+00:00",
)

manifests = st.builds(
    Manifest,
    run_id=st.text(),
    round=st.integers(0, 10**7),
    phase=st.sampled_from(["round", "final"]),
    fingerprint=st.text(),
    accuracy=st.none() | st.floats(0, 1),
    shards=st.lists(
        st.builds(
            Shard,
            name=st.integers(0, 99999).map(lambda client: f"client_{client:04d}.pt") | st.just("server.pt"),
            num_bytes=st.integers(0),
            sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
        ),
        max_size=4,
        unique_by=lambda shard: shard.name,
    ).map(tuple),
    versions=st.dictionaries(st.text(), st.none() | st.text(), max_size=3),
    created=st.text(),
)


@settings(max_examples=60)
@given(manifests)
def test_what_is_written_is_read(manifest):
    assert Manifest.from_json(manifest.to_json(), "here") == manifest
    assert Manifest.from_json(manifest.to_json().encode(), "here") == manifest


def test_the_folder_is_named_by_round_and_phase():
    assert WHOLE.folder == "round_000010"
    assert changed(phase="final").folder == "final"
    assert changed(round=1234567).folder == "round_1234567"


@pytest.mark.parametrize("accuracy", [math.nan, math.inf, -math.inf])
def test_an_accuracy_that_is_not_finite_becomes_null(accuracy):
    text = Manifest(**(vars(WHOLE) | {"accuracy": accuracy})).to_json()

    assert json.loads(text)["accuracy"] is None
    assert Manifest.from_json(text, "here").accuracy is None


def test_an_accuracy_that_is_a_whole_number_is_read_back():
    assert Manifest.from_json(Manifest(**(vars(WHOLE) | {"accuracy": 1})).to_json(), "here").accuracy == 1.0


def changed(**keys):
    return Manifest.from_json(text_with(**keys), "here")


def text_with(**keys):
    return json.dumps(json.loads(WHOLE.to_json()) | keys)


def shard_with(**keys):
    return text_with(shards=[{"name": "server.pt", "num_bytes": 1, "sha256": HASH} | keys])


def without(key):
    values = json.loads(WHOLE.to_json())
    del values[key]
    return json.dumps(values)


BAD_NAMES = [
    "../server.pt",
    "/etc/passwd",
    "client_0001.pt/../../x.pt",
    "client_001.pt",
    "client_0001.pt\n",
    "client_\u0661\u0662\u0663\u0664.pt",
    "manifest.json",
    "",
    "server.pt.tmp",
    "SERVER.PT",
]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 10_000, "is not JSON"),
        ("[]", "where an object is expected"),
        (text_with(format=2), "was written by a newer fedvtc"),
        # A newer one may look quite different.
        ('{"format": 7}', "was written by a newer fedvtc"),
        (text_with(format=0), "format cannot be 0"),
        (text_with(format="1"), "format cannot be '1'"),
        (text_with(more=1), "'more' is unknown"),
        (text_with(round=-1), "round cannot be -1"),
        (text_with(round=True), "round cannot be True"),
        (text_with(round=3.0), "round cannot be 3.0"),
        (text_with(phase="ROUND"), "phase cannot be 'ROUND'"),
        (text_with(phase=["round"]), "phase cannot be"),
        (text_with(run_id=None), "run_id cannot be None"),
        (text_with(fingerprint=3), "fingerprint cannot be 3"),
        (text_with(created=3), "created cannot be 3"),
        (text_with(accuracy="high"), "accuracy cannot be 'high'"),
        (text_with(accuracy=math.nan), "is not JSON"),
        (WHOLE.to_json().replace("0.75", "1e999"), "accuracy cannot be inf"),
        (text_with(versions=[]), "versions cannot be"),
        (text_with(versions={"torch": 2}), "versions cannot be"),
        (text_with(shards={}), "shards cannot be"),
        (text_with(shards=["server.pt"]), "'server.pt' where an object is expected"),
        (text_with(shards=[{"name": "server.pt", "num_bytes": 1, "sha256": HASH}] * 2), "names a file twice"),
        (text_with(shards=[{"name": "server.pt", "num_bytes": 1}]), "sha256 is missing"),
        (shard_with(mode=1), "'mode' is unknown"),
        (shard_with(num_bytes=-1), "num_bytes cannot be -1"),
        (shard_with(num_bytes=1.0), "num_bytes cannot be 1.0"),
        (shard_with(sha256=HASH[:-1]), "sha256 cannot be"),
        (shard_with(sha256=HASH + "\n"), "sha256 cannot be"),
        (shard_with(sha256=HASH.upper()), "sha256 cannot be"),
        *((shard_with(name=name), "name cannot be") for name in BAD_NAMES),
        *((without(key), f"{key} is missing") for key in vars(WHOLE)),
    ],
)
def test_a_manifest_that_cannot_be_is_refused_in_one_line(text, fault):
    with pytest.raises(CheckpointError) as raised:
        Manifest.from_json(text, "round_000010/manifest.json")
    assert str(raised.value).startswith("round_000010/manifest.json: ")
    assert fault in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_torn_manifest_is_refused_wherever_it_is_torn():
    text = WHOLE.to_json()

    for end in range(len(text.rstrip())):
        with pytest.raises(CheckpointError):
            Manifest.from_json(text[:end], "here")
