"""Run directories as the app writes them, made without a run."""

import numpy as np

from fgl_app.results.plots import plot_image_grid, plot_label_distribution
from fgl_app.results.run_directory import RunDirectory

CONFIG = {"method": "fgl", "num-clients": 10, "prompt-template": "<script>alert(1)</script>"}


def make_run(tmp_path, name="a-run", *, config=CONFIG, accuracies=(0.4, 0.8), metrics=None, **summary):
    """Return the directory of a completed run with ten clients; ``summary`` overrides summary values.

    With ``metrics`` every round and the summary have these metrics in place of accuracy and loss.
    """
    run = RunDirectory.create(tmp_path, name, config)
    with run.phase("synthesis"):
        pass
    for number, accuracy in enumerate(accuracies, 1):
        sent = {"uplink_bytes": 123_450 + 4_000_000 * (number - 1), "downlink_bytes": 5_000_000}
        values = metrics or {"accuracy": accuracy, "loss": 1 / number}
        run.log({"event": "round", "round": number, **values, **sent})
    run.write_summary(
        {
            "strategy": "fgl-fedavg",
            "dataset": "digits",
            "seed": 3,
            "num_clients": 10,
            "rounds": len(accuracies),
            "status": "completed",
            "seconds": {"total": 185.0, "synthesis": 74.0},
            "uplink_bytes": {"total": 4_123_450, "setup": 123_450, "train": 4_000_000},
            "downlink_bytes": {"total": 5_000_000, "train": 5_000_000},
            **(metrics or {"accuracy": accuracies[-1] if accuracies else None, "loss": 0.5}),
            "rejected_uploads": [],
            "failures": [],
            "versions": {"python": "3.11.7", "flwr": "1.41.0"},
        }
        | summary
    )
    return run.path


def draw_pictures(run):
    """Draw the pictures that a run draws before its report."""
    names = [str(digit) for digit in range(10)]
    plot_label_distribution(np.full((10, 10), 40), names, run / "label_distribution.png")
    plot_image_grid(np.zeros((10, 8, 8), np.uint8), np.arange(10), names, run / "synthetic_images.png")
