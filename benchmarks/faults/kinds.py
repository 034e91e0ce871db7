"""Kinds of faults. A seed draws the moment of each fault, so that a table can be repeated."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from faults import damage
from faults.trial import Attempt, Setting, Trial

CLIENT, METHOD = "fedvtc.learning.client.client:FederatedClient.", "fedvtc.learning.methods.fedvtc:FedVTC."
STEPS = "fedvtc.learning.methods.fedvtc.steps:"
STORE, LOG = "fedvtc.storage.checkpoints.store:CheckpointStore.", "fedvtc.tracking.record_files:JsonlTracker.log"
LOG_ROWS, WRITE = "fedvtc.tracking.record_files:CsvTracker.log", "fedvtc.storage.append:AppendFile._write"
KILLED = -signal.SIGKILL
TWICE_S = 0.3
"""Seconds between the two signals of an impatient user."""

Draw = Callable[[str, Setting, Random], Trial]
Calls = Callable[[Setting, int], range]
"""Call numbers that certainly occur in one process, given the number of its clients."""


def injected(process: str, target: str, calls: Calls, *words: str, action: str = "kill", when: str = "") -> Draw:
    """An injected fault at one call of a function in the driver, or in one of the actors."""

    def draw(kind: str, setting: Setting, random: Random) -> Trial:
        num_actors = random.choice((2, 3))
        # The fullest actor hosts this many clients, so at least one actor reaches the call.
        num_hosted = -(-setting.num_clients // num_actors)
        moment = when or random.choice(("before", "after"))
        call = random.choice(calls(setting, num_hosted))
        fault = {"target": target, "call": call, "when": moment, "action": action, "process": process}
        code = KILLED if process == "driver" and action == "kill" else 0
        return Trial(kind, f"{moment} call {call}", num_actors, code, (fault,), words)

    return draw


def both(first: Draw, second: Draw) -> Draw:
    """Two injected faults."""

    def draw(kind: str, setting: Setting, random: Random) -> Trial:
        one, two = first(kind, setting, random), second(kind, setting, random)
        where = f"{one.where}, {two.where}"
        code = min(one.code, two.code)
        # The fullest of three actors hosts fewer clients than the fullest of two, and makes fewer calls.
        num_actors = min(one.num_actors, two.num_actors)
        return Trial(kind, where, num_actors, code, (*one.faults, *two.faults), (*one.overrides, *two.overrides))

    return draw


@dataclass(frozen=True)
class Moment:
    """A moment between two rounds: rounds that are done, and a share of the time to the next round."""

    rounds: int
    share: float

    @classmethod
    def drawn(cls, setting: Setting, random: Random) -> "Moment":
        rounds = random.randint(0, setting.rounds)
        # A small share after the last round, because the run ends soon.
        return cls(rounds, random.uniform(0.0, 0.9 if rounds < setting.rounds else 0.25))

    def __str__(self) -> str:
        return f"{self.rounds} rounds done and {self.share:.0%}"

    def wait(self, attempt: Attempt) -> bool:
        """Waits for the moment; returns False if the process ended before."""
        return attempt.wait(rounds=self.rounds, seconds=self.share * attempt.usual_s[self.rounds])


def signalled(number: signal.Signals, code: int, *, twice: bool = False, to_all: bool = False) -> Draw:
    """A signal at any moment, sent once or twice, to the driver or, like a terminal, to all processes."""

    def draw(kind: str, setting: Setting, random: Random) -> Trial:
        moment = Moment.drawn(setting, random)

        def disturb(attempt: Attempt) -> None:
            if moment.wait(attempt):
                attempt.signal(number, to_all=to_all)
                if twice and attempt.wait(seconds=TWICE_S):
                    attempt.signal(number, to_all=to_all)

        # If the raylet handles the signal first, Ray ends the driver at once with code 1.
        ray_code = 1 if to_all and number == signal.SIGTERM else None
        return Trial(kind, str(moment), random.choice((2, 3)), code, disturb=disturb, ray_code=ray_code)

    return draw


def node_lost(word: str) -> Draw:
    """Loss of the second of two nodes; the first node may or may not have slots for its actors."""

    def draw(kind: str, setting: Setting, random: Random) -> Trial:
        nodes, moment = random.choice(((1, 2), (3, 2))), Moment.drawn(setting, random)

        def disturb(attempt: Attempt) -> None:
            if moment.wait(attempt):
                attempt.order(word)

        per_actor = -(-setting.num_clients // 3)
        overrides = ("runtime.replace_timeout_s=5", f"placement.clients_per_actor={per_actor}")
        where = f"{moment}, CPUs left {nodes[0]}"
        return Trial(kind, where, 3, overrides=overrides, nodes=nodes, disturb=disturb)

    return draw


def damaged(break_: Callable[[Path, Random], str]) -> Draw:
    """The driver is killed after at least two checkpoints, and the newest checkpoint is damaged."""

    def draw(kind: str, setting: Setting, random: Random) -> Trial:
        at = range(2, setting.rounds + 1)
        killed = injected("driver", f"{STORE}publish", lambda _, __: at, when="after")(kind, setting, random)

        def damage_newest(run: Path) -> Sequence[str]:
            newest = max(path.parent for path in run.glob("checkpoints/round_*/manifest.json"))
            return newest.name, break_(newest, random)

        where = f"checkpoint {killed.faults[0]['call']}"
        return Trial(kind, where, killed.num_actors, killed.code, killed.faults, damage=damage_newest)

    return draw


def torn(name: str, target: str, *words: str) -> Draw:
    """The driver is killed after an evaluation, and the last line of a file is torn."""

    def draw(kind: str, setting: Setting, random: Random) -> Trial:
        at = range(setting.evaluate_every, setting.rounds + 1, setting.evaluate_every)
        killed = injected("driver", target, lambda _, __: at, *words, when="after")(kind, setting, random)

        def tear(run: Path) -> Sequence[str]:
            damage.tear_the_last_line(run / name, random)
            return ()

        where = f"of round {killed.faults[0]['call']}"
        return Trial(kind, where, killed.num_actors, killed.code, killed.faults, killed.overrides, damage=tear)

    return draw


def full_disk(key: str, size: str) -> Draw:
    """A disk of the trial's own that is full from one round to another."""

    def draw(kind: str, setting: Setting, random: Random) -> Trial:
        first = random.randint(0, setting.rounds - 2)
        last = random.randint(first + 1, setting.rounds - 1)

        def disturb(attempt: Attempt) -> None:
            filler = attempt.disk / "filler"
            if attempt.wait(rounds=first):
                damage.fill(filler)
                attempt.wait(rounds=last)
                filler.unlink()

        where = f"from round {first} to {last}"
        return Trial(kind, where, random.choice((2, 3)), disk=(key, size), disturb=disturb)

    return draw


def small_disk(key: str, size: str) -> Draw:
    """A disk of the trial's own that is always full."""

    def draw(kind: str, setting: Setting, random: Random) -> Trial:
        return Trial(kind, f"of {size}", random.choice((2, 3)), disk=(key, size), has_weights=False)

    return draw


def rounds(setting: Setting, _: int) -> range:
    """One call a round."""
    return range(1, setting.rounds + 1)


def hosted_rounds(setting: Setting, num_hosted: int) -> range:
    """One call a round for each client of an actor."""
    return range(1, setting.rounds * num_hosted + 1)


def hosted_checkpoints(setting: Setting, num_hosted: int) -> range:
    """One call a round and one at the end for each client of an actor."""
    return range(1, (setting.rounds + 1) * num_hosted + 1)


def after_rounds(setting: Setting, _: int) -> range:
    """The first call after those of the rounds."""
    return range(setting.rounds + 1, setting.rounds + 2)


def once(_: Setting, __: int) -> range:
    """The first call."""
    return range(1, 2)


def hosted(_: Setting, num_hosted: int) -> range:
    """One call for each client of an actor."""
    return range(1, num_hosted + 1)


def evaluated(setting: Setting, num_hosted: int) -> range:
    """One call an evaluation for each client of an actor."""
    return range(1, setting.num_evaluations * num_hosted + 1)


KINDS: dict[str, Draw] = {
    "actor killed: training": injected("actor", f"{CLIENT}train", hosted_rounds),
    "actor killed: statistics": injected("actor", f"{CLIENT}statistics", hosted_rounds),
    "actor killed: generator": injected("actor", f"{STEPS}train_generator", hosted_rounds),
    "actor killed: upload": injected("actor", f"{METHOD}client_round", hosted_rounds, when="after"),
    "actor killed: evaluation": injected("actor", f"{CLIENT}confusions", evaluated),
    "actor killed: samples": injected("actor", f"{METHOD}samples", lambda s, _: range(1, s.num_grids + 1)),
    "actor killed: finish": injected("actor", f"{STEPS}finetune", hosted),
    "actor killed: saving": injected("actor", f"{STORE}write", hosted_checkpoints),
    "actor killed: saving the final one": injected(
        "actor", f"{STORE}write", lambda s, h: range(s.rounds * h + 1, (s.rounds + 1) * h + 1), when="before"
    ),
    "actor killed: again when rebuilt": both(
        injected("actor", f"{CLIENT}train", hosted_rounds),
        injected("actor", "fedvtc.runtime.host:ClientHost.rebuild", once),
    ),
    "actor hung: training": injected(
        "actor", f"{CLIENT}train", hosted_rounds, "runtime.client_timeout_s=20", action="stop"
    ),
    "actor hung: saving": injected(
        "actor", f"{STORE}write", hosted_checkpoints, "runtime.client_timeout_s=20", action="stop"
    ),
    "client out of memory": injected(
        "actor", f"{STEPS}train_generator", hosted_rounds, "runtime.on_client_error=retry", action="memory"
    ),
    "node lost: raylet killed": node_lost("raylet"),
    "node lost: all its processes": node_lost("node"),
    "driver killed: before round 1": injected("driver", "fedvtc.federation.rounds:Federation.run", once, when="before"),
    "driver killed: merging": injected(
        "driver",
        "fedvtc.learning.exchange.statistics:FeatureStatistics.from_arrays",
        lambda s, _: range(1, s.rounds * s.num_clients + 1),
    ),
    "driver killed: server's half": injected("driver", f"{METHOD}server_round", rounds),
    "driver killed: evaluation": injected(
        "driver",
        "fedvtc.learning.metrics:evaluate_confusion",
        lambda s, _: range(1, s.num_evaluations * s.num_clients + 1),
    ),
    "driver killed: before the record": injected("driver", LOG, rounds, when="before"),
    "driver killed: after the record": injected("driver", LOG, rounds, when="after"),
    "driver killed: saving a shard": injected("driver", f"{STORE}write", lambda s, _: range(1, s.rounds + 2)),
    "driver killed: before the manifest": injected("driver", f"{STORE}publish", rounds, when="before"),
    "driver killed: after the manifest": injected("driver", f"{STORE}publish", rounds, when="after"),
    "driver killed: pruning": injected("driver", f"{STORE}prune", rounds),
    "driver killed: finish": injected(
        "driver", "fedvtc.learning.round_tally:RoundTally.add_scalars", lambda s, _: range(1, s.num_clients + 1)
    ),
    "driver killed: final record": injected("driver", LOG, after_rounds),
    "driver killed: final checkpoint": injected("driver", f"{STORE}publish", after_rounds),
    "driver killed: any moment": signalled(signal.SIGKILL, KILLED),
    # A run that is resumed after its first checkpoint has one round less.
    "driver killed: and again": both(
        injected("driver", f"{METHOD}server_round", lambda s, _: range(1, s.rounds)),
        injected("driver", f"{STORE}publish", once),
    ),
    "SIGTERM": signalled(signal.SIGTERM, 143),
    "SIGTERM twice": signalled(signal.SIGTERM, 143, twice=True),
    "SIGTERM to all": signalled(signal.SIGTERM, 143, to_all=True),
    "SIGINT": signalled(signal.SIGINT, 130),
    "Ctrl-C": signalled(signal.SIGINT, 130, to_all=True),
    "Ctrl-C twice": signalled(signal.SIGINT, 130, twice=True, to_all=True),
    "checkpoint: shard truncated": damaged(damage.truncate),
    "checkpoint: bit flipped": damaged(damage.flip_a_bit),
    "checkpoint: shard missing": damaged(damage.remove),
    "checkpoint: manifest torn": damaged(damage.tear_the_manifest),
    "metrics.jsonl torn": torn("metrics.jsonl", LOG),
    "clients.csv torn": torn("clients.csv", LOG_ROWS),
    # Only checkpoints are synced to the disk, so a power cut may tear a line of a round with a checkpoint.
    "metrics.jsonl torn, round is saved": torn("metrics.jsonl", f"{STORE}publish", "checkpoint.async=false"),
    "clients.csv torn, round is saved": torn("clients.csv", f"{STORE}publish", "checkpoint.async=false"),
    "disk full: a client's shard": injected("actor", f"{STORE}write", hosted_rounds, action="full", when="before"),
    "disk full: the server's shard": injected("driver", f"{STORE}write", rounds, action="full", when="before"),
    "disk full: a record": injected("driver", WRITE, rounds, action="full", when="before"),
    "disk full: a picture": injected(
        "driver",
        "fedvtc.reporting.sample_grid:sample_grid",
        lambda s, _: range(1, s.num_grids + 1),
        action="full",
        when="before",
    ),
    "disk full: run folder, for a while": full_disk("run.output_dir", "200m"),
    "disk full: checkpoints, for a while": full_disk("checkpoint.dir", "200m"),
    "disk full: checkpoints, for good": small_disk("checkpoint.dir", "300k"),
}
