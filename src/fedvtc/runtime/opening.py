"""Opens the pool that a config asks for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedvtc.config.schema import Config
from fedvtc.config.secrets import shown
from fedvtc.errors import count_of
from fedvtc.learning.data import Dataset
from fedvtc.learning.data.passes import images_in_round
from fedvtc.learning.models import flops_of_image
from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.balance import Workload, balance
from fedvtc.runtime.choice import with_pool
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
    idle_folder: Path | None = None,
) -> Iterator[Pool]:
    """Opens a pool that hosts all clients; the end of the block closes the pool.

    Args:
        config: the run's config; its sections `placement` and `cluster` choose the pool.
        dataset: the images of all clients.
        specs: the clients to host.
        namespace: Ray namespace for the actors of the run.
        lineage: records the steps of the clients.
        incidents: reports lost actors, failed clients and damaged checkpoints.
        idle_folder: folder for the states of idle clients, as in `ClientHost`.

    Raises:
        ConfigError: the images are too small for a backbone.
        ClusterError: no cluster answers at the address, or the cluster is too small.
    """
    # Computed for every pool, because images that are too small for a backbone must be refused before the run starts.
    sizes = [len(spec.indices_N) for spec in specs]
    costs_K = client_costs(config, dataset, [spec.backbone for spec in specs], sizes)
    asked, config = config.placement.pool, with_pool(config, costs_K, sizes)
    # Each pool is imported only where used, because Ray and Lightning take seconds to import.
    if config.placement.pool == "inline":
        if asked == "auto":
            incidents.tell("placement.pool=auto: the clients live in this process, because Ray would take longer")
        from fedvtc.runtime.inline_pool import InlinePool

        with InlinePool(config, dataset, specs, lineage, incidents, idle_folder) as inline:
            yield inline
        return
    from fedvtc.runtime.actors.cluster import address_of, connected
    from fedvtc.runtime.actors.pool import RayPool
    from fedvtc.runtime.actors.slots import reserved

    address, source = address_of(config.cluster)
    incidents.tell(f"attaching to {shown(source, address)}" if address else "starting a Ray cluster on this machine")
    with (
        connected(config.cluster, namespace),
        reserved(config.placement, len(specs), incidents.tell) as (packing, slots),
    ):
        incidents.tell(f"starting {count_of(packing.num_actors, 'actor')} for {count_of(len(specs), 'client')}")
        hosted = balance(costs_K, packing.num_actors, packing.clients_per_actor)
        pool = RayPool(
            config,
            dataset,
            [[specs[client] for client in clients] for clients in hosted],
            slots,
            Workload(dict(enumerate(costs_K)), {spec.client: spec.backbone for spec in specs}),
            namespace=namespace,
            lineage=lineage,
            incidents=incidents,
            idle_folder=idle_folder,
        )
        try:
            pool.check()
            yield pool
        finally:
            pool.close()


def client_costs(
    config: Config, dataset: Dataset, backbones: Sequence[str], num_images_K: Sequence[int]
) -> list[float]:
    """Estimates the cost of a round for each client: images of the round times operations of the backbone for one.

    Generators are equal for all clients and left out. Once rounds are measured, the measured seconds replace the
    estimates.
    """
    sizes = {"num_channels": dataset.num_channels, "image_size": dataset.image_size}
    feature_size = config.population.feature_size
    return [
        float(max(1, images_in_round(num_images, config.training)))
        * flops_of_image(backbone, feature_size=feature_size, **sizes)
        for backbone, num_images in zip(backbones, num_images_K, strict=True)
    ]
