"""FGL and its baselines on the embedded digits: the table of docs/results.md.

Each row is a run of `fgl run` in its own process. Finished runs are reused, so the benchmark can be
interrupted and started again.

    python -m benchmarks.digits --out outputs/benchmark            # everything, 3 seeds
    python -m benchmarks.digits --out outputs/benchmark --only fgl
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

from benchmarks.tables import round_events, run, spread

CLASSIFIER = "method=classifier"
EXPERIMENTS: dict[str, list[str]] = {
    "fgl": [],
    "fedavg": [CLASSIFIER, "num-server-rounds=50"],
    "fgl-5-rounds": ["num-server-rounds=5"],
    "fgl-5-rounds-fine-tuned": ["num-server-rounds=5", "server-epochs=5"],
    "fgl-instance": ["prompts=instance"],
    "fedavg-alpha0.5": [CLASSIFIER, "num-server-rounds=50", "dirichlet-alpha=0.5"],
    "labels-only": ["prompts=labels-only"],
    "centralized": [CLASSIFIER, "inner-strategy=centralized", "num-server-rounds=5"],
    "local-only": [CLASSIFIER, "inner-strategy=local-only", "num-server-rounds=5"],
}
ROUNDS = (1, 2, 5, 10, 20, 50)


def rows(name: str, folders: list[Path]) -> list[str]:
    """Return the table rows of one experiment: accuracy, bytes and seconds up to each round."""
    runs = [round_events(folder) for folder in folders]
    table = []
    for number in ROUNDS:
        at = [events[number] for events in runs if number in events]
        if not at:
            continue
        accuracy = f"{spread([event['accuracy'] for event in at], 100)} ({len(at)})"
        uplink, downlink, seconds = (
            mean(event[key] for event in at) for key in ("uplink_bytes", "downlink_bytes", "elapsed")
        )
        table.append(f"| {name} | {number} | {accuracy} | {uplink:,.0f} | {downlink:,.0f} | {seconds:.0f} |")
    return table


def main() -> None:
    """Run the missing experiments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmark"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of each")
    parser.add_argument("--only", nargs="*", help="rows to run; all by default")
    options = parser.parse_args()
    names = options.only or list(EXPERIMENTS)
    out = options.out.absolute()
    # All rows of a seed before the next seed: an interrupted table has all rows, with fewer seeds.
    folders: dict[str, list[Path]] = {name: [] for name in names}
    for seed in range(options.seeds):
        for name in names:
            folders[name].append(run(f"{name}-seed{seed}", [f"seed={seed}", *EXPERIMENTS[name]], out))
    print("\n| what | round | accuracy, % (seeds) | uplink, bytes | downlink, bytes | seconds |")
    print("|---|---|---|---|---|---|")
    print("\n".join(line for name in names for line in rows(name, folders[name])))


if __name__ == "__main__":
    main()
