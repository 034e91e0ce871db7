import json
import math
from dataclasses import asdict, replace

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
def test_a_written_manifest_is_read_back(manifest):
    assert Manifest.from_json(manifest.to_json(), "here") == manifest
    assert Manifest.from_json(manifest.to_json().encode(), "here") == manifest


def test_the_folder_is_named_by_round_and_phase():
    assert WHOLE.folder == "round_000010"
    assert changed(phase="final").folder == "final"
    assert changed(round=1234567).folder == "round_1234567"


@pytest.mark.parametrize("accuracy", [math.nan, math.inf, -math.inf])
def test_an_accuracy_that_is_not_finite_becomes_null(accuracy):
    text = replace(WHOLE, accuracy=accuracy).to_json()

    assert json.loads(text)["accuracy"] is None
    assert Manifest.from_json(text, "here").accuracy is None


def test_an_accuracy_that_is_a_whole_number_is_read_back():
    assert Manifest.from_json(replace(WHOLE, accuracy=1).to_json(), "here").accuracy == 1.0


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


BAD_TEXTS = {
    "empty": "",
    "not text": b"\xff\xfe\x00",
    "list": "[]",
    "newer": text_with(format=3),
    "newer with other keys": '{"format": 7}',
    "format 0": text_with(format=0),
    "format as text": text_with(format="1"),
    "unknown key": text_with(more=1),
    "round -1": text_with(round=-1),
    "round true": text_with(round=True),
    "round 3.0": text_with(round=3.0),
    "unknown phase": text_with(phase="ROUND"),
    "phase as list": text_with(phase=["round"]),
    "run_id null": text_with(run_id=None),
    "fingerprint as number": text_with(fingerprint=3),
    "created as number": text_with(created=3),
    "accuracy as text": text_with(accuracy="high"),
    "accuracy NaN": text_with(accuracy=math.nan),
    "accuracy infinite": WHOLE.to_json().replace("0.75", "1e999"),
    "versions as list": text_with(versions=[]),
    "version as number": text_with(versions={"torch": 2}),
    "shards as object": text_with(shards={}),
    "shard as text": text_with(shards=["server.pt"]),
    "shard twice": text_with(shards=[{"name": "server.pt", "num_bytes": 1, "sha256": HASH}] * 2),
    "shard without hash": text_with(shards=[{"name": "server.pt", "num_bytes": 1}]),
    "unknown key of a shard": shard_with(mode=1),
    "num_bytes -1": shard_with(num_bytes=-1),
    "num_bytes 1.0": shard_with(num_bytes=1.0),
    "short hash": shard_with(sha256=HASH[:-1]),
    "hash with line end": shard_with(sha256=HASH + "\n"),
    "hash in capitals": shard_with(sha256=HASH.upper()),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_an_impossible_manifest_is_refused(case, golden, keys_of):
    with pytest.raises(CheckpointError) as caught:
        Manifest.from_json(BAD_TEXTS[case], "round_000010/manifest.json")
    assert keys_of(caught.value) == ["round_000010/manifest.json"]
    golden(caught.value)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_shard_name_that_could_lead_elsewhere_is_refused(name, keys_of):
    with pytest.raises(CheckpointError) as caught:
        Manifest.from_json(shard_with(name=name), "round_000010/manifest.json")
    assert keys_of(caught.value) == ["round_000010/manifest.json"]
    assert "name cannot be" in str(caught.value)


@pytest.mark.parametrize("key", asdict(WHOLE))
def test_a_manifest_without_a_field_is_refused(key):
    with pytest.raises(CheckpointError) as caught:
        Manifest.from_json(without(key), "round_000010/manifest.json")
    assert str(caught.value) == f"round_000010/manifest.json: {key} is missing"


def test_a_manifest_torn_at_any_byte_is_refused():
    text = WHOLE.to_json()

    for end in range(len(text.rstrip())):
        with pytest.raises(CheckpointError):
            Manifest.from_json(text[:end], "here")
