"""Messages of FedVTC in narrow floats."""

import numpy as np
import pytest

from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import bytes_by_kind
from fedvtc.learning.exchange.statistics import FeatureStatistics
from fedvtc.learning.methods.fedvtc.wire import received, received_statistics, sent, sent_statistics

FORMS = ["scalar", "client_diagonal", "class_diagonal", "class_full"]
SIZE = 6


def statistics(form, num_images=40):
    rng = np.random.default_rng(0)
    return FeatureStatistics.of(rng.normal(size=(num_images, SIZE)), rng.integers(0, 3, num_images), form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("wire", "rtol"), [("exact", 0), ("float32", 1e-6), ("float16", 1e-2)])
def test_statistics_keep_their_meaning(form, wire, rtol):
    before = statistics(form)
    after = received_statistics(sent_statistics(before, wire), form)
    assert after.count_K.tolist() == before.count_K.tolist()
    np.testing.assert_allclose(after.mean_KD, before.mean_KD, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(after.scatter, before.scatter, rtol=rtol, atol=rtol * 40)


def test_float16_carries_the_scatter_of_many_images():
    many = FeatureStatistics(
        "client_diagonal", np.array([0]), np.array([10**6]), np.zeros((1, 2)), np.array([3e6, 5e5])
    )
    after = received_statistics(sent_statistics(many, "float16"), "client_diagonal")
    np.testing.assert_allclose(after.scatter, many.scatter, rtol=1e-3)


@pytest.mark.parametrize(("wire", "bytes_each"), [("float32", 4), ("float16", 2)])
def test_factors_are_sent_as_triangles_and_drawn_from_as_before(wire, bytes_each):
    gaussians = ClassGaussians.of(statistics("class_full"), sigma_floor=0.05, prior_count=10.0)
    payload = sent(gaussians.to_payload(), wire)
    assert bytes_by_kind(payload)["covariance"] == 3 * SIZE * (SIZE + 1) // 2 * bytes_each
    after = ClassGaussians.from_arrays(payload["prototypes"], received(payload["covariance"]))
    np.testing.assert_allclose(after.spread, gaussians.spread, rtol=1e-3, atol=1e-4)
    assert np.triu(after.spread, 1).max() == 0.0


def test_the_exact_wire_changes_nothing():
    payload = ClassGaussians.of(statistics("class_full"), sigma_floor=0.05, prior_count=10.0).to_payload()
    assert sent(payload, "exact") == payload
    assert sent_statistics(statistics("class_full"), "exact")["covariance"].keys() == {"scatter"}
