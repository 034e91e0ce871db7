"""The work of `work.py` through BlazeFL: its FedAvg in one thread, with images in memory instead of a DataLoader.

BlazeFL keeps one model for all clients; the optimizer is new in each round of a client, because of its momentum.
BlazeFL's function that flattens weights refuses the layout `channels_last`, in which the model takes two thirds of the
time, so the function is replaced here.
"""

import torch
from blazefl.contrib import fedavg
from work import BATCH_SIZE, CLIENTS, LEARNING_RATE, PARTICIPANTS, Turns, batches, clients, new_model, new_optimizer

MANY_ROUNDS = 1_000_000
SEED = 0


def flat_weights(model: torch.nn.Module, cpu: bool = True) -> torch.Tensor:
    return torch.cat([weight.reshape(-1) for weight in model.state_dict().values()])


class Trainer(fedavg.FedAvgBaseClientTrainer):
    def train(self, model_parameters, train_loader, cid):
        self.optimizer = new_optimizer(self.model)
        return super().train(model_parameters, train_loader, cid)


class Models:
    def select_model(self, model_name):
        return new_model()


class ClientImages:
    """The partitioned data set: the trainer asks for the loader of a client, and goes through its batches."""

    def __init__(self) -> None:
        self.clients = clients()

    def get_dataloader(self, type_, cid, batch_size, generator):
        return batches(*self.clients[cid])


def main() -> None:
    turns = Turns()
    fedavg.serialize_model = flat_weights
    dataset = ClientImages()
    handler = fedavg.FedAvgBaseServerHandler(
        model_selector=Models(),
        model_name="cnn",
        dataset=dataset,
        global_round=MANY_ROUNDS,
        num_clients=CLIENTS,
        sample_ratio=PARTICIPANTS / CLIENTS,
        device="cpu",
        batch_size=BATCH_SIZE,
        seed=SEED,
    )
    trainer = Trainer(
        model_selector=Models(),
        model_name="cnn",
        dataset=dataset,
        device="cpu",
        num_clients=CLIENTS,
        epochs=1,
        batch_size=BATCH_SIZE,
        lr=LEARNING_RATE,
        seed=SEED,
    )
    while turns.wait():
        participants = handler.sample_clients()
        trainer.local_process(handler.downlink_package(), participants)
        for package in trainer.uplink_package():
            handler.load(package)
    turns.end([weight.detach().numpy() for weight in handler.model.parameters()])


if __name__ == "__main__":
    main()
