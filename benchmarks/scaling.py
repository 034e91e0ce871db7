"""Measures rounds and memory against the number of clients, and rounds against the number of actors; draws both.

    .venv/bin/python benchmarks/scaling.py --out docs/performance [--clients 10 100 1000 10000] [--actors 1 2]
    .venv/bin/python benchmarks/scaling.py --out docs/performance --draw

Runs the command `fedvtc run` on noise: clients of `cnn_2x8` with 60 images of 28 x 28, one epoch, 10 clients a round, a
checkpoint after every round. The first series has one actor and more and more clients; the second has 100 clients, 20 a
round, and more actors. Writes scaling.csv, a row a run, and scaling.svg; `--draw` draws the numbers of the file again.
"""

import argparse
import csv
import statistics
import tempfile
from pathlib import Path

import altair as alt
import numpy as np
from watching import watched

IMAGES_EACH, MANY_ROUNDS = 60, 1_000_000
DISTINCT_IMAGES = 60_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of scaling.csv and scaling.svg")
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--actors", type=int, nargs="*", default=[1, 2], help="none to leave the second series out")
    parser.add_argument("--participants", type=int, default=10, help="clients a round in the first series")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of a run; the first warms up")
    parser.add_argument("--draw", action="store_true", help="only draw the numbers of scaling.csv")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    if not words.draw:
        rows = []
        runs = [("clients", clients, 1, words.participants) for clients in words.clients]
        for series, clients, actors, participants in [*runs, *(("actors", 100, actors, 20) for actors in words.actors)]:
            rows.append(measure(series, clients, actors, participants, words.rounds))
            with (words.out / "scaling.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    if words.draw or words.actors:
        draw(words.out)


def measure(series: str, clients: int, actors: int, participants: int, num_rounds: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        images = Path(folder, "noise.npz")
        save_noise(images, clients * IMAGES_EACH)
        keys = [
            "method.name=fedavg",
            "data.name=npz",
            f"data.path={images}",
            "partition.kind=iid",
            f"population.num_clients={clients}",
            "population.backbones=[{name: cnn_2x8, share: 1}]",
            f"run.participation={participants / clients}",
            f"run.rounds={MANY_ROUNDS}",
            f"evaluate.every={MANY_ROUNDS}",
            f"run.output_dir={folder}",
            "run.name=scaling",
            f"cluster.num_cpus={actors}",
        ]
        found = watched(keys, Path(folder, "scaling"), num_rounds)
    records = found.records[1:num_rounds]
    row = {
        "series": series,
        "clients": clients,
        "actors": actors,
        "clients_a_round": participants,
        "start_s": round(found.start_s, 1),
        "round_s": round(statistics.median(record["time/round"] for record in records), 3),
        "client_cpu_s": round(statistics.median(record["cpu/client"] for record in records), 3),
        "pss_gb": round(found.peak_bytes / 1e9, 2),
    }
    print(row, flush=True)
    return row


def save_noise(path: Path, num_images: int) -> None:
    """Saves images, of which many are equal, so that 600,000 of them take a few seconds to make."""
    rng = np.random.default_rng(0)
    distinct = rng.integers(256, size=(DISTINCT_IMAGES, 28, 28), dtype=np.uint8)
    train = np.resize(distinct, (num_images, 28, 28))
    labels = np.arange(num_images) % 10
    np.savez(path, x_train=train, y_train=labels, x_test=distinct[:100], y_test=labels[:100])


def draw(folder: Path) -> None:
    with (folder / "scaling.csv").open() as file:
        rows = [
            {name: value if name == "series" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]

    def chart(series: str, x: str, y: str, title: str, *, is_log: bool) -> alt.Chart:
        own = [row for row in rows if row["series"] == series]
        values = sorted({row[x] for row in own})
        heights = alt.Scale(domain=[0, 1.1 * max(row[y] for row in own)], nice=True)
        scale = alt.Scale(type="log", nice=False) if is_log else alt.Scale(domain=[0, max(values) + 1])
        return (
            alt.Chart(alt.Data(values=own), width=220, height=160, title=alt.Title(title, anchor="start"))
            .mark_line(point=alt.OverlayMarkDef(size=50))
            .encode(
                alt.X(f"{x}:Q", scale=scale, axis=alt.Axis(values=values, format=",d", grid=False), title=x),
                alt.Y(f"{y}:Q", scale=heights, axis=alt.Axis(tickCount=5), title=None),
            )
        )

    participants = next(int(row["clients_a_round"]) for row in rows if row["series"] == "clients")
    figure = alt.hconcat(
        chart("clients", "clients", "round_s", f"Round of {participants} clients, seconds", is_log=True),
        chart("clients", "clients", "pss_gb", "Peak memory of all processes, GB", is_log=True),
        chart("actors", "actors", "round_s", "Round of 20 clients, seconds", is_log=False),
        # White also on a dark page, where black letters would be lost.
        background="white",
        padding=12,
    ).configure_axis(labelFontSize=12, titleFontSize=13, titleFontWeight="normal", labelColor="black")
    figure = figure.configure_title(fontSize=13, fontWeight="bold")
    figure.save(folder / "scaling.svg")


if __name__ == "__main__":
    main()
