"""The plan of a run: clients and their images, bytes per round, actors, memory. Nothing is trained.

Shape suffixes: K clients, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedvtc.commands.plan.nodes import is_local, nodes_of, pack_clients
from fedvtc.config.schema import Config
from fedvtc.learning.methods import Task, build, largest_bytes
from fedvtc.learning.models import parameter_counts
from fedvtc.learning.population import Population
from fedvtc.runtime.balance import balance
from fedvtc.runtime.opening import client_costs
from fedvtc.runtime.placement import Packing, Resources

ACTOR_BYTES = 500_000_000
"""Memory of an actor's process after importing torch and lightning, before it builds a client."""

COPIES_OF_WEIGHTS = 4
"""Weights, gradients and the two moments of Adam, each of 4 bytes."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that `fedvtc plan` shows.

    Attributes:
        config: the run's config.
        population: the data set, and the backbone and images of each client.
        free: free resources by node; empty if no cluster answers.
        needs: resources that each actor reserves.
        packing: number of actors and clients per actor.
        costs_K: estimated work of a round by client, without unit.
        hosted: clients by actor.
        parameters: trainable parameters by backbone, classifier head included.
        payload_bytes: bytes per client and round, by direction (`up`, `down`) and kind.
    """

    config: Config
    population: Population
    free: Sequence[Resources]
    needs: Resources
    packing: Packing
    costs_K: list[float]
    hosted: list[list[int]]
    parameters: dict[str, int]
    payload_bytes: dict[str, dict[str, int]]

    @property
    def backbones(self) -> list[str]:
        """Backbone by client."""
        return [spec.backbone for spec in self.population.specs]

    @property
    def dataset_bytes(self) -> int:
        """Memory of the images, training and test set."""
        dataset = self.population.dataset
        return dataset.train.images_NCHW.nbytes + dataset.test.images_NCHW.nbytes

    @property
    def memory_bytes(self) -> int:
        """Estimated memory of all processes, with the images once and without activations."""
        weights = sum(self.parameters[name] for name in self.backbones) * 4 * COPIES_OF_WEIGHTS
        return (self.packing.num_actors + 1) * ACTOR_BYTES + weights + self.dataset_bytes


def make_plan(config: Config) -> Plan:
    """Loads the data, draws the partition and builds each backbone once.

    Raises:
        DataError: the data are absent, or the partition is impossible.
        ClusterError: the actors do not fit, or the address is not that of a node.
    """
    free, total = nodes_of(config)
    where = "this machine" if is_local(config) else "the cluster, as it is now,"
    needs, packing = pack_clients(config, free, total, where)
    population = Population.of(config)
    dataset, num_clients = population.dataset, config.population.num_clients
    feature_size = config.population.feature_size
    backbones = [spec.backbone for spec in population.specs]
    head = (feature_size + 1) * dataset.num_classes
    counts = parameter_counts(
        backbones, num_channels=dataset.num_channels, image_size=dataset.image_size, feature_size=feature_size
    )
    costs_K = client_costs(config, dataset, backbones, [len(spec.indices_N) for spec in population.specs])
    return Plan(
        config=config,
        population=population,
        free=free,
        needs=needs,
        packing=packing,
        costs_K=costs_K,
        hosted=balance(costs_K, packing.num_actors or 1, packing.clients_per_actor),
        parameters={name: count + head for name, count in counts.items()},
        payload_bytes=largest_bytes(build(config.method, Task.of(config, dataset)), num_clients),
    )
