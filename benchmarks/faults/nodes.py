"""Starts a Ray cluster of two nodes on this machine: `python nodes.py HEAD_CPUS WORKER_CPUS`.

The process prints the address of the cluster, then reads orders: `raylet` kills the raylet of the second node, `node`
kills all processes of the second node, `end` or the end of the input ends the cluster.
"""

import logging
import sys

from ray.cluster_utils import Cluster

SIZE = {"object_store_memory": 300 * 2**20, "include_dashboard": False}


def main() -> None:
    head_cpus, worker_cpus = map(int, sys.argv[1:])
    logging.getLogger("ray").setLevel(logging.ERROR)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head_cpus, **SIZE})
    worker = cluster.add_node(num_cpus=worker_cpus, **SIZE)
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line == "raylet\n":
            worker.kill_raylet(check_alive=False)
        elif line == "node\n":
            cluster.remove_node(worker, allow_graceful=False)
        else:
            break
    cluster.shutdown()


if __name__ == "__main__":
    main()
