"""The checks of `check_method`."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from fedvtc.config.schema import MethodConfig
from fedvtc.learning.exchange.messages import Payload, bytes_by_kind
from fedvtc.learning.methods import Method, largest_bytes, method_class
from fedvtc.learning.metrics import CLIENT_METRICS, SPREAD_METRICS
from fedvtc.testing.federation import LOST_CLASS, PARTICIPANTS, PARTS, Results, TinyFederation, digest, each, modules_of
from fedvtc.testing.watch import Watch

_TAKEN = {"trained"} | {name.rpartition("/")[2] for name in [*CLIENT_METRICS, *SPREAD_METRICS]}
"""Names that other metrics have in a record."""


def check_method(
    method: type[Method[Any]],
    config: MethodConfig | None = None,
    *,
    bytes_vary: bool = False,
    untrained: Collection[str] = (),
) -> str:
    """Runs a method in a federation of four clients on 8 x 8 images, and checks what holds for every method.

    * Uploads are those of the model trained in the round; the server stores and sends what it trains.
    * A resume after any round, another division of the clients among processes, or an evaluation changes no bit.
    * Uploads of a client that holds every class have the bytes of `largest_upload` and `largest_closing`.
    * Clients of one image or of one class keep finite weights, and a class that nobody holds keeps its values.
    * A second `receive` changes nothing. The server changes no state and no upload in place.
    * The rounds are those of the keys that `of_rounds` of the config returns.
    * A module that trains changes, and sends no gradient into another module of a client.

    Args:
        method: the class, at the top level of a module that can be imported.
        config: keys of the method; None takes the defaults. Fewer epochs and smaller networks make the checks faster.
        bytes_vary: True if the bytes of an upload depend on its values, as with compression. The largest uploads are
            upper bounds then.
        untrained: payload kinds of uploads that do not depend on training, such as counts of labels.

    Returns:
        The SHA-256 of all results: equal digests mean equal bits.

    Raises:
        AssertionError: a check fails; the text names the fault.
    """
    federation = TinyFederation(method, config or method.config_class())
    straight = federation.run()
    _check_finite(straight)
    _check_clients(federation, straight)
    _check_bytes(federation, straight, bytes_vary)
    _check_training(federation, straight, untrained)
    _check_lost_class(straight)
    _check_repeats(federation, straight)
    _check_rounds(federation, straight)
    return straight.digest()


def _check_finite(straight: Results) -> None:
    for client, state in enumerate(straight.clients):
        for name, part in state.items():
            weights = part.get("module", part)
            finite = all(bool(torch.isfinite(torch.as_tensor(weight)).all()) for weight in weights.values())
            assert finite, f"client {client} of {len(PARTS[client])} images ends with {name} not finite"


def _check_clients(federation: TinyFederation, straight: Results) -> None:
    """Checks `receive` and `predictors` on a client with the broadcast of the first round."""
    host, broadcast = federation.hosts()[0], straight.broadcasts[0]
    client, broadcast = host._clients.use(0), broadcast.seen_by(host._clients.use(0).backbone_name)
    federation.method.receive(client, broadcast)
    before = digest(client.state_dict())
    federation.method.receive(client, broadcast)
    assert digest(client.state_dict()) == before, "a second receive changes the client"
    client.eval()
    predictors = federation.method.predictors(client, broadcast)
    taken = sorted(_TAKEN & predictors.keys())
    assert not taken, f"a predictor cannot have the name {', '.join(taken)}, which is that of another metric"
    images = client.images.inputs()
    for name, predictor in predictors.items():
        with torch.inference_mode():
            scores_BC = predictor(images)
        assert scores_BC.shape == (len(images), 3), f"predictor {name} returns {tuple(scores_BC.shape)}, not (B, C)"
        assert not scores_BC.isnan().any(), f"predictor {name} returns NaN"


def _check_bytes(federation: TinyFederation, straight: Results, bytes_vary: bool) -> None:
    """Compares the largest uploads with those of client 0, and the broadcast of two such uploads in the first round."""
    method, upload = federation.method, straight.uploads[0][0]
    planned, sent = largest_bytes(method, 2), bytes_by_kind(upload.payload)
    _compare_bytes("largest_upload", sent, planned["up"], bytes_vary)
    if method.has_closing:
        closing = bytes_by_kind(straight.uploads[-1][0].payload)
        _compare_bytes("largest_closing", closing, bytes_by_kind(method.largest_closing().payload), bytes_vary)
    if bytes_vary or not sent:
        return
    uploads = [replace(upload, client=client) for client in range(2)]
    broadcast = method.last_broadcast(*method.server_round(method.start()[0], iter(uploads), federation.server(1)))
    received = bytes_by_kind(broadcast.seen_by(upload.backbone).payload)
    assert received == planned["down"], f"two uploads give a broadcast of {received} bytes, not {planned['down']}"


def _compare_bytes(function: str, sent: Mapping[str, int], planned: Mapping[str, int], bytes_vary: bool) -> None:
    if bytes_vary:
        fits = sent.keys() == planned.keys() and all(sent[kind] <= planned[kind] for kind in sent)
        assert fits, f"an upload of every class has {sent} bytes, more than {planned} of {function}"
    else:
        fix = f"Define {function}, which returns an upload of the kinds and shapes of a client that holds every class."
        assert sent == planned, f"an upload of every class has {sent} bytes, {function} {planned}. {fix}"


def _check_training(federation: TinyFederation, straight: Results, untrained: Collection[str]) -> None:
    """Repeats steps without the effect of training: what a method sends must differ."""
    method, (state, first) = federation.method, federation.method.start()
    tasks = {"run_round": first} | ({"closing_upload": straight.broadcasts[-2]} if method.has_closing else {})
    for task, broadcast in tasks.items():
        hosts = federation.hosts()
        (trained,) = each(hosts, [0], task, broadcast)
        hosts = federation.hosts()
        watch = Watch(partial(modules_of, hosts), is_idle=True)
        with watch.on():
            (idle,) = each(hosts, [0], task, broadcast)
        stale = [kind for kind in _same_floats(idle.payload, trained.payload) if kind not in untrained]
        assert not stale or not watch.num_fits, (
            f"the upload of {', '.join(stale)} by {task} does not depend on the training before it"
        )
    watch = Watch(dict, is_idle=True)
    with watch.on():
        after, sent = method.server_round(state, iter(straight.uploads[0]), federation.server(1))
    if watch.num_fits:
        stored = digest(after) != digest(straight.states[0])
        assert stored, "the state does not depend on the server's training: store what is trained"
        right = straight.broadcasts[0]
        is_sent = digest([sent.payload, sent.groups]) != digest([right.payload, right.groups])
        assert is_sent, "the broadcast does not depend on the server's training: send what is trained"


def _same_floats(one: Payload, other: Payload) -> list[str]:
    """Returns the kinds with floats, all of which are equal in both payloads; compression may change their names."""
    floats = {
        kind: [name for name, array in arrays.items() if np.issubdtype(array.dtype, np.floating)]
        for kind, arrays in one.items()
    }
    return [
        kind
        for kind, named in floats.items()
        if named and all(np.array_equal(one[kind][name], other[kind].get(name, np.nan)) for name in named)
    ]


def _check_lost_class(straight: Results) -> None:
    """Checks kinds with rows by class: a class that nobody held in the second round has its values of the first.

    A server that trains may change the values.
    """
    first, second = straight.broadcasts[:2]
    is_trained = any(name.startswith("loss/server/") for name in straight.scalars[1])
    for kind, before in first.payload.items():
        classes_K = before.get("classes", np.zeros(0))
        if LOST_CLASS not in classes_K or len(np.unique(classes_K)) < len(classes_K):
            continue
        after = second.payload.get(kind, {})
        lost = f"{kind}: class {LOST_CLASS}, which nobody held in a round,"
        assert LOST_CLASS in after.get("classes", ()), f"{lost} is no longer in the broadcast"
        old, new = (list(arrays["classes"]).index(LOST_CLASS) for arrays in (before, after))
        for name, array in before.items():
            if array.ndim and len(array) == len(classes_K) and not is_trained:
                assert np.array_equal(array[old], after[name][new]), f"{lost} has another {name}"


def _check_repeats(federation: TinyFederation, straight: Results) -> None:
    """Runs once more in three processes, with restarts and evaluations; on a difference, finds the cause."""
    packing = ((3,), (2, 0), (1,))
    expected = straight.digest()
    if federation.run(packing, restarts=True, evaluates=True).digest() == expected:
        return
    assert federation.run().digest() == expected, "two equal runs differ: a random draw has no key"
    assert federation.run(packing).digest() == expected, "another division of the clients among processes changes bits"
    assert federation.run(evaluates=True).digest() == expected, "an evaluation changes the rounds that follow"
    raise AssertionError("a resume changes bits: some state is in neither client.modules, client.memory nor the state")


def _check_rounds(federation: TinyFederation, straight: Results) -> None:
    """Runs the rounds of the keys that the rounds depend on: messages and common modules must be equal."""
    config = federation.config.method
    keys = config.of_rounds()
    if keys == config:
        return
    assert keys.of_rounds() == keys, "of_rounds of the keys that of_rounds returns has other keys"
    other = TinyFederation(method_class(keys.name), keys).run(ends=False)
    what = "the rounds differ from those of the keys that of_rounds returns"
    for number in range(len(PARTICIPANTS)):
        sent = [[upload.payload for upload in results.uploads[number]] for results in (straight, other)]
        assert digest(sent[0]) == digest(sent[1]), f"{what}: uploads of round {number + 1}"
        received = [
            [results.broadcasts[number].payload, results.broadcasts[number].groups] for results in (straight, other)
        ]
        assert digest(received[0]) == digest(received[1]), f"{what}: broadcast of round {number + 1}"
    for client, (own, others) in enumerate(zip(straight.trained, other.trained, strict=True)):
        differing = [name for name in own if others.get(name, own[name]) != own[name]]
        assert not differing, f"{what}: {', '.join(differing)} of client {client}"
