"""From a config to a pool: how many actors, which clients in each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fedvtc.client import ClientSpec
from fedvtc.config.schema import Config
from fedvtc.data import Dataset
from fedvtc.incidents import Incidents
from fedvtc.models import parameter_counts
from fedvtc.runtime.balance import balance
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.pool import InlinePool, Pool


@contextmanager
def open_pool(
    config: Config,
    dataset: Dataset,
    specs: Sequence[ClientSpec],
    *,
    namespace: str,
    lineage: Lineage,
    incidents: Incidents,
) -> Iterator[Pool]:
    """A pool with every client in it, closed on the way out.

    Args:
        config: its `placement` and `cluster` decide.
        dataset: for all clients.
        specs: the clients.
        namespace: of the run, for the names of its actors.
        lineage: how clients are built again.
        incidents: hear of lost actors and failed clients.

    Raises:
        ClusterError: there is no cluster at the address, or it is too small.
    """
    if config.placement.pool == "inline":
        with InlinePool(config, dataset, specs, lineage, incidents) as inline:
            yield inline
        return
    from fedvtc.runtime.cluster import connected
    from fedvtc.runtime.places import reserved
    from fedvtc.runtime.ray_pool import RayPool

    with (
        connected(config.cluster, namespace),
        reserved(config.placement, len(specs), incidents.tell) as (packing, places),
    ):
        hosted = balance(_costs(config, dataset, specs), packing.num_actors, packing.clients_per_actor)
        pool = RayPool(
            config,
            dataset,
            [[specs[client] for client in clients] for clients in hosted],
            places,
            namespace,
            lineage,
            incidents,
        )
        try:
            yield pool
        finally:
            pool.close()


def _costs(config: Config, dataset: Dataset, specs: Sequence[ClientSpec]) -> list[float]:
    """Images times parameters: a guess that puts large clients before small ones, all that is asked of it."""
    counts = parameter_counts(
        (spec.backbone for spec in specs),
        num_channels=dataset.num_channels,
        image_size=dataset.image_size,
        feature_size=config.population.feature_size,
    )
    return [float(len(spec.indices_N) * counts[spec.backbone]) for spec in specs]
