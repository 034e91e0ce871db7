from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fedvtc.config import load
from fedvtc.config.names import BACKBONES
from fedvtc.config.schema import BackboneShare, PopulationConfig
from fedvtc.errors import ConfigError
from fedvtc.learning.data import save_partition
from fedvtc.learning.methods import config_classes
from fedvtc.learning.population import Population, assign_backbones

POPULATIONS = sorted((Path(__file__).parents[2] / "conf/population").glob("*.yaml"))


def population_of(shares, num_clients):
    backbones = [BackboneShare(f"b{index}", share) for index, share in enumerate(shares)]
    return PopulationConfig(num_clients=num_clients, backbones=backbones)


@st.composite
def populations(draw):
    """Shares as cuts of [0, 1], so that they add up to 1."""
    cuts = draw(st.lists(st.integers(1, 99), max_size=6, unique=True).map(sorted))
    shares = [(high - low) / 100 for low, high in pairwise([0, *cuts, 100])]
    return population_of(shares, draw(st.integers(1, 150)))


def test_shares_dealt_by_hand():
    # Two backbones: in line when half a client behind. Behind before each deal, b0 / b1: .75/.25, .5/.5 (both due now,
    # so the earlier), .25/.75, 1/0.
    assert assign_backbones(population_of([0.75, 0.25], 4)) == ["b0", "b0", "b1", "b0"]


@pytest.mark.parametrize("num_backbones", [1, 3, 4, 7])
def test_equal_shares_take_turns(num_backbones):
    assigned = assign_backbones(population_of([1 / num_backbones] * num_backbones, 200))

    assert assigned == [f"b{client % num_backbones}" for client in range(200)]


@given(populations())
def test_a_larger_federation_begins_with_the_smaller_one(population):
    assigned = assign_backbones(population)

    smaller = PopulationConfig(num_clients=max(1, len(assigned) // 2), backbones=population.backbones)
    assert assigned[: smaller.num_clients] == assign_backbones(smaller)
    assert len(assigned) == population.num_clients


@given(populations())
# Taking the backbone that is furthest behind leaves b5 short by 1.07 of its 43.07 clients here.
@example(population_of([0.12, 0.01, 0.01, 0.12, 0.01, 0.73], 59))
def test_every_prefix_is_within_one_client_of_the_shares(population):
    counts = Counter()

    for num_clients, name in enumerate(assign_backbones(population), start=1):
        counts[name] += 1
        for backbone in population.backbones:
            assert abs(counts[backbone.name] - backbone.share * num_clients) < 1


@given(populations())
def test_whole_hundreds_meet_the_shares_exactly(population):
    hundred = PopulationConfig(num_clients=100, backbones=population.backbones)

    assert Counter(assign_backbones(hundred)) == {b.name: round(100 * b.share) for b in population.backbones}


@pytest.mark.parametrize("path", POPULATIONS, ids=lambda path: path.stem)
def test_shipped_populations_name_known_backbones_and_add_up(path):
    text = path.read_text(encoding="ascii")
    backbones = OmegaConf.to_container(OmegaConf.create(text))["population"]["backbones"]

    assert text.startswith("# ")
    assert "fedvtc run conf/data/" in text.splitlines()[1]
    assert f"conf/population/{path.name}" in text.splitlines()[1]
    assert {backbone["name"] for backbone in backbones} <= set(BACKBONES)
    assert sum(backbone["share"] for backbone in backbones) == pytest.approx(1.0)


def test_shares_may_miss_a_sum_of_one_by_rounding():
    assigned = assign_backbones(population_of([0.333, 0.333, 0.333], 3000))

    assert Counter(assigned) == {"b0": 1000, "b1": 1000, "b2": 1000}


def test_the_populations_that_the_docs_name_are_shipped():
    assert [path.stem for path in POPULATIONS] == [
        "cnn4",
        "cnn_sizes",
        "families",
        "large",
        "mixed",
        "resnets",
        "uniform",
    ]


@pytest.mark.parametrize(("kind", "share"), [("iid", 0.2), ("all", 0.7), ("iid", 0.0)])
def test_global_validation_images_are_those_that_no_client_trains_on(kind, share):
    words = [f"partition.kind={kind}", f"evaluate.validation_share={share}", "population.num_clients=2"]
    population = Population.of(load([], words, methods=config_classes()))
    one, other = population.specs
    own = [set(spec.validation_M) for spec in population.specs]
    apart = set.intersection(*own) if kind == "all" else set.union(*own)
    found = population.dataset.validation_M
    assert sorted(apart) == found.tolist()
    assert (len(found) > 0) == (share > 0)
    assert not set(found) & {*one.indices_N, *other.indices_N}


@pytest.mark.parametrize(
    ("override", "key"),
    [("data.path=mine.npz", "data.path"), ("partition.file=partition.npz", "partition.file")],
)
def test_a_new_run_refuses_a_file_that_it_would_not_read(tmp_path, keys_of, golden, override, key):
    config = load([], [override, "population.num_clients=2"], methods=config_classes())
    with pytest.raises(ConfigError) as caught:
        Population.of(config)
    assert keys_of(caught.value) == [key]
    golden(caught.value)
    # A run that has begun so goes on.
    saved = Population.of(load([], ["population.num_clients=2"], methods=config_classes()))
    save_partition(tmp_path / "partition.npz", [spec.indices_N for spec in saved.specs])
    resumed = Population.of(config, tmp_path / "partition.npz")
    assert (resumed.class_counts_KC == saved.class_counts_KC).all()
