"""The plan of a run: clients and their images, bytes per round, actors, memory. Nothing is trained.

Shape suffixes: K clients, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedvtc.commands.plan.footprint import ClientBytes, Footprint, clients_by_backbone, footprint
from fedvtc.commands.plan.nodes import is_local, nodes_of, pack_clients
from fedvtc.config.own_code import own_calls
from fedvtc.config.schema import Config
from fedvtc.learning.exchange.accounting import PrivacyLoss
from fedvtc.learning.methods import Task, build, largest_bytes, run_bytes, undefined_sizes
from fedvtc.learning.population import Population
from fedvtc.runtime.balance import balance
from fedvtc.runtime.choice import with_pool
from fedvtc.runtime.opening import client_costs
from fedvtc.runtime.placement import Packing, Resources


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that `fedvtc plan` shows.

    Attributes:
        config: the run's config; `placement.pool` is the chosen pool.
        population: the data set, and the backbone and images of each client.
        free: free resources by node; empty if no cluster answers.
        total: all resources by node; empty if no cluster answers.
        needs: resources that each actor reserves.
        packing: number of actors and clients per actor.
        costs_K: estimated work of a round by client, without unit.
        hosted: clients by actor.
        clients: memory and disk space of a client, by backbone.
        payload_bytes: bytes per client and round, by direction (`up`, `down`) and kind.
        run_bytes: bytes per client in a round (`round`) and after the last round (`end`), by direction and kind.
        undefined_sizes: functions that the method lacks to count the bytes of messages; the bytes are then unknown.
        privacy: the privacy loss of a client in the whole run; None if messages have no noise.
    """

    config: Config
    population: Population
    free: Sequence[Resources]
    total: Sequence[Resources]
    needs: Resources
    packing: Packing
    costs_K: list[float]
    hosted: list[list[int]]
    clients: dict[str, ClientBytes]
    payload_bytes: dict[str, dict[str, int]]
    run_bytes: dict[str, dict[str, dict[str, int]]]
    undefined_sizes: Sequence[str]
    privacy: PrivacyLoss | None

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
    def memory(self) -> Footprint:
        """Estimated memory of all processes."""
        inline = self.config.placement.pool == "inline"
        last = max(sum(self.payload_bytes["down"].values()), sum(self.run_bytes["end"]["down"].values()))
        server_bytes = 2 * last
        limit = self.config.placement.client_bytes_per_actor
        return footprint(
            self._bytes_K,
            self.hosted,
            self.dataset_bytes,
            self._float_bytes,
            server_bytes,
            inline=inline,
            state_limit=limit,
        )

    @property
    def checkpoint_bytes(self) -> int:
        """Estimated disk space of a checkpoint."""
        return sum(client.saved for client in self._bytes_K) + sum(self.payload_bytes["down"].values())

    @property
    def _float_bytes(self) -> list[int]:
        """Bytes of the images that each process keeps as floats."""
        if self.needs.num_gpus:
            return [0] * len(self.hosted)
        image_bytes = 4 * math.prod(self.population.dataset.train.images_NCHW.shape[1:])
        sizes = [len(spec.indices_N) for spec in self.population.specs]
        limit = self.config.placement.image_bytes_per_actor
        return [min(limit, image_bytes * sum(sizes[client] for client in clients)) for clients in self.hosted]

    @property
    def _bytes_K(self) -> list[ClientBytes]:
        return [self.clients[backbone] for backbone in self.backbones]


@own_calls()
def make_plan(config: Config) -> Plan:
    """Loads the data, draws the partition and builds each backbone once.

    Raises:
        DataError: the data are absent, or the partition is impossible.
        ClusterError: the actors do not fit, or the address is not that of a node.
        OwnCodeError: a function of a method of the user's own fails.
    """
    population = Population.of(config)
    dataset, num_clients = population.dataset, config.population.num_clients
    backbones, sizes = [spec.backbone for spec in population.specs], [len(spec.indices_N) for spec in population.specs]
    costs_K = client_costs(config, dataset, backbones, sizes)
    config = with_pool(config, costs_K, sizes)
    free, total = nodes_of(config)
    where = "this machine" if is_local(config) else "the cluster, as it is now,"
    needs, packing = pack_clients(config, free, total, where)
    method = build(config.method, Task.of(config, dataset))
    return Plan(
        config=config,
        population=population,
        free=free,
        total=total,
        needs=needs,
        packing=packing,
        costs_K=costs_K,
        hosted=balance(costs_K, packing.num_actors or 1, packing.clients_per_actor),
        clients=clients_by_backbone(config, dataset, population.specs, method),
        payload_bytes=largest_bytes(method, num_clients),
        run_bytes=run_bytes(method, num_clients),
        undefined_sizes=undefined_sizes(method),
        privacy=method.privacy_loss(sizes),
    )
