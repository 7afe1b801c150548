"""FGL and its baselines on the embedded digits: the table of docs/results.md.

Runs every row through `fgl run`, a process each, and reads the run directories. Finished runs are kept, so
it can be stopped and started again.

    python -m benchmarks.digits --out outputs/benchmark            # everything, 3 seeds
    python -m benchmarks.digits --out outputs/benchmark --only fgl
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

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


def run(name: str, seed: int, arguments: list[str], out: Path) -> Path:
    """Run one row once, unless it has run; return its run directory."""
    folder = out / f"{name}-seed{seed}"
    if not (folder / "summary.json").is_file():
        print(f"{folder.name}: running", flush=True)
        command = [sys.executable, "-m", "fgl_app.cli", "run", "--quiet", f"seed={seed}"]
        command += [f"output-dir={out}", f"run-name={folder.name}", *arguments]
        subprocess.run(command, check=True)
    return folder


def accuracies(folder: Path) -> dict[int, float]:
    """Return the accuracy after each round of a run."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return {event["round"]: event["accuracy"] for event in events if event["event"] == "round"}


def spread(values: list[float], scale: float = 1.0) -> str:
    """Return mean and standard deviation over seeds, as a table shows them."""
    deviation = stdev(values) if len(values) > 1 else 0.0
    return f"{scale * mean(values):.1f} ± {scale * deviation:.1f}"


def row(name: str, folders: list[Path]) -> list[str]:
    """Return the table rows of one experiment: accuracy by round, bytes and seconds."""
    summaries = [json.loads((folder / "summary.json").read_text(encoding="utf-8")) for folder in folders]
    by_round = [accuracies(folder) for folder in folders]
    rows = []
    for number in sorted(by_round[0]):
        if number not in ROUNDS:
            continue
        share = number / summaries[0]["rounds"] if name.startswith("fedavg") else 1.0
        uplink = mean(summary["uplink_bytes"]["total"] for summary in summaries) * share
        downlink = mean(summary["downlink_bytes"]["total"] for summary in summaries) * share
        seconds = mean(summary["seconds"]["total"] for summary in summaries) * share
        accuracy = spread([rounds[number] for rounds in by_round], 100)
        rows.append(f"| {name} | {number} | {accuracy} | {uplink:,.0f} | {downlink:,.0f} | {seconds:.0f} |")
    return rows


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmark"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of each")
    parser.add_argument("--only", nargs="*", help="rows to run; all by default")
    options = parser.parse_args()
    names = options.only or list(EXPERIMENTS)
    table = []
    for name in names:
        seeds = range(options.seeds)
        folders = [run(name, seed, EXPERIMENTS[name], options.out.absolute()) for seed in seeds]
        table += row(name, folders)
    print("\n| what | round | accuracy, % | uplink, bytes | downlink, bytes | seconds |")
    print("|---|---|---|---|---|---|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
