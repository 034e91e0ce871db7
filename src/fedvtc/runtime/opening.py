"""From a config to a pool: how many actors, which clients in each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fedvtc.config.schema import Config
from fedvtc.learning.data import Dataset
from fedvtc.learning.models import flops_of_image
from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.balance import Workload, balance
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.pool import Pool


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
        ConfigError: the images are too small for a backbone.
        ClusterError: there is no cluster at the address, or it is too small.
    """
    # For every pool: images too small for a backbone are refused here, before anything begins.
    sizes = [len(spec.indices_N) for spec in specs]
    costs_K = client_costs(config, dataset, [spec.backbone for spec in specs], sizes)
    # What only one of the pools needs is imported for that one: Lightning alone takes seconds.
    if config.placement.pool == "inline":
        from fedvtc.runtime.inline_pool import InlinePool

        with InlinePool(config, dataset, specs, lineage, incidents) as inline:
            yield inline
        return
    from fedvtc.runtime.actors.cluster import connected
    from fedvtc.runtime.actors.pool import RayPool
    from fedvtc.runtime.actors.slots import reserved

    with (
        connected(config.cluster, namespace),
        reserved(config.placement, len(specs), incidents.tell) as (packing, places),
    ):
        hosted = balance(costs_K, packing.num_actors, packing.clients_per_actor)
        pool = RayPool(
            config,
            dataset,
            [[specs[client] for client in clients] for clients in hosted],
            places,
            Workload(dict(enumerate(costs_K))),
            namespace=namespace,
            lineage=lineage,
            incidents=incidents,
        )
        try:
            pool.start()
            yield pool
        finally:
            pool.close()


def client_costs(
    config: Config, dataset: Dataset, backbones: Sequence[str], num_images_K: Sequence[int]
) -> list[float]:
    """What a round may cost each client: images times the operations of one image's way through the backbone.

    Generators are the same for all, and left out; once rounds have been seen, the seconds that they took count.
    """
    sizes = {"num_channels": dataset.num_channels, "image_size": dataset.image_size}
    feature_size = config.population.feature_size
    return [
        float(max(1, num_images) * flops_of_image(backbone, feature_size=feature_size, **sizes))
        for backbone, num_images in zip(backbones, num_images_K, strict=True)
    ]
