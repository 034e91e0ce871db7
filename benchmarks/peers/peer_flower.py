"""The work of `work.py` through Flower's simulation: one Ray actor, which keeps all images and one model in memory.

Flower's documents load the client's images and build a model in each call. Here both are kept, which is faster.
"""

import os
from functools import cache
from pathlib import Path

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch.nn import functional
from work import CLIENTS, PARTICIPANTS, Turns, batches, clients, new_model, new_optimizer

MANY_ROUNDS = 1_000_000
client_app, server_app = ClientApp(), ServerApp()
turns: Turns


class Finished(Exception):
    pass


@cache
def kept():
    """Images and model of the actor."""
    torch.set_num_threads(1)
    return clients(), new_model()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    # The actor unpickles the app, so its kept objects hang on the imported module.
    import peer_flower

    images, model = peer_flower.kept()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    model.train()
    own_images, labels = images[context.node_config["partition-id"]]
    optimizer, losses = new_optimizer(model), []
    for batch, labels_B in batches(own_images, labels):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(batch), labels_B)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    metrics = MetricRecord({"loss": float(torch.stack(losses).mean()), "num-examples": len(labels)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


class RoundsOnCommand(FedAvg):
    """FedAvg, of which each round waits for its command."""

    arrays: ArrayRecord

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid):
        self.arrays = arrays
        if not turns.wait():
            raise Finished
        return super().configure_train(server_round, arrays, config, grid)


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    strategy = RoundsOnCommand(fraction_train=PARTICIPANTS / CLIENTS, fraction_evaluate=0.0)
    try:
        strategy.start(grid, initial_arrays=ArrayRecord(new_model().state_dict()), num_rounds=MANY_ROUNDS)
    except Finished:
        turns.end(list(strategy.arrays.to_numpy_ndarrays()))


def main() -> None:
    global turns
    turns = Turns()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    run_simulation(
        server_app,
        client_app,
        num_supernodes=CLIENTS,
        backend_config={
            "init_args": {"num_cpus": 1, "address": "local"},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main()
