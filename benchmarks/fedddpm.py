"""FedDDPM, its baselines and its controls on the embedded digits: the tables of docs/results.md.

Each row is a run of `fgl run` in its own process. Finished runs are reused, so the benchmark can be
interrupted and started again.

    python -m benchmarks.fedddpm --out outputs/fedddpm                        # 3 splits, 3 seeds
    python -m benchmarks.fedddpm --out outputs/fedddpm --splits 0.01 --seeds 1
    python -m benchmarks.fedddpm --out outputs/fedddpm --ablation
"""

from __future__ import annotations

import argparse
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.tables import run, spread, summary
from fgl_app.config import parse_config
from fgl_app.data.partitions import partition

DIFFUSION = ["method=diffusion"]
FEDDDPM = ["method=fedddpm"]
SPLITS: dict[str, dict[str, str | float]] = {
    "0.01": {"dirichlet-alpha": 0.01},
    "0.5": {"dirichlet-alpha": 0.5},
    "iid": {"partitioning": "iid"},
}
CLIENTS = 5
PROTOCOL = ["metric-samples=2000", "evaluate-every=1000"]
COLUMNS = (
    *(
        "what",
        "Frechet distance",
        "label agreement, %",
        "downstream accuracy, %",
        "precision, %",
        "recall, %",
    ),
    *("set-up, s", "clients, s", "server, s", "uplink, MB"),
)


def equal_compute_rounds(split: str, seed: int) -> int:
    """Return the smallest number of FedAvg rounds with at least as many training steps as all of FedDDPM.

    Pre-training, rounds and corrections count; sampling of the auxiliary set (seconds) does not.
    """
    config = parse_config({"method": "fedddpm", "seed": seed, **SPLITS[split]})
    rounds = config.num_server_rounds - 1
    epochs = [ceil(len(part) / config.batch_size) for part in partition(config, CLIENTS)]
    pretraining = sum(
        steps * max(config.local_pretrain_epochs, ceil(config.local_pretrain_min_steps / steps))
        for steps in epochs
    )
    round_steps = config.local_epochs * sum(epochs)
    correction_steps = config.server_epochs * ceil(config.auxiliary_size / config.batch_size)
    return ceil((pretraining + rounds * (round_steps + correction_steps)) / round_steps)


def experiments(split: str, seed: int) -> dict[str, list[str]]:
    """Return the config values of each row of the main table."""
    return {
        "fedavg": DIFFUSION,
        "fedddpm": FEDDDPM,
        "fedddpm-plus": ["method=fedddpm-plus"],
        "auxiliary-only": [*FEDDDPM, "inner-strategy=auxiliary-only"],
        "fedavg-equal-compute": [*DIFFUSION, f"num-server-rounds={equal_compute_rounds(split, seed)}"],
        "fedprox": [*DIFFUSION, "inner-strategy=fedprox"],
        "scaffold": [*DIFFUSION, "inner-strategy=scaffold"],
        "centralized": [*DIFFUSION, "inner-strategy=centralized"],
        "local-only": [*DIFFUSION, "inner-strategy=local-only"],
    }


ABLATION = {
    "auxiliary-size-500": [*FEDDDPM, "auxiliary-size=500"],
    "auxiliary-size-4000": [*FEDDDPM, "auxiliary-size=4000"],
    "server-epochs-1": [*FEDDDPM, "server-epochs=1"],
    "server-epochs-6": [*FEDDDPM, "server-epochs=6"],
    "threshold-0.02": ["method=fedddpm-plus", "correction-threshold=0.02"],
    "threshold-0.08": ["method=fedddpm-plus", "correction-threshold=0.08"],
}


def row(name: str, runs: list[dict[str, Any]]) -> str:
    """Return a table row: quality, seconds of clients and server for the first seed, bytes."""

    def values(key: str, scale: float = 1.0, digits: int = 1) -> str:
        found = [float(each[key]) for each in runs if key in each]
        return spread(found, scale, digits) if found else "-"

    def seconds(*phases: str) -> str:
        # From one run: others may have shared the machine.
        return f"{sum(runs[0]['seconds'].get(phase, 0.0) for phase in phases):.0f}"

    uplink = mean(each["uplink_bytes"]["total"] for each in runs) / 1e6
    return " | ".join(
        [
            f"| {name}",
            values("frechet_distance", digits=2),
            values("label_agreement", 100),
            values("downstream_accuracy", 100),
            values("precision", 100),
            values("recall", 100),
            seconds("uploads"),
            seconds("clients' rounds", "training", "local training"),
            seconds("auxiliary set", "corrections"),
            f"{uplink:.0f} |",
        ]
    )


def main() -> None:
    """Run the missing experiments and print a table for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/fedddpm"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of each")
    parser.add_argument("--splits", nargs="*", choices=SPLITS, default=list(SPLITS), help="all by default")
    parser.add_argument("--only", nargs="*", help="rows to run; all by default")
    parser.add_argument("--ablation", action="store_true", help="the ablation's rows, not the main table's")
    options = parser.parse_args()
    out = options.out.absolute()
    names = options.only or list(ABLATION if options.ablation else experiments("iid", 0))
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    # All rows of a seed before the next seed: an interrupted table has all rows, with fewer seeds.
    for seed in range(options.seeds):
        for split in options.splits:
            table = ABLATION if options.ablation else experiments(split, seed)
            values = [f"{key}={value}" for key, value in SPLITS[split].items()]
            for name in names:
                arguments = [f"seed={seed}", *PROTOCOL, *values, *table[name]]
                folder = run(f"{name}-{split}-seed{seed}", arguments, out)
                runs.setdefault((split, name), []).append(summary(folder))
    for split in options.splits:
        print(f"\n{split}, {options.seeds} seeds")
        print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
        print("\n".join(row(name, runs[split, name]) for name in names))


if __name__ == "__main__":
    main()
