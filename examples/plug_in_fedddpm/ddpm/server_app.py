"""ServerApp of the project: FedAvg as before, inside FedDDPM."""

import json
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from ddpm.task import load_digits, make_unet
from ddpm.task import test as test_unet
from fgl_app.plug_in import correct_with, sample_with
from fgl_app.strategies import FedDDPMStrategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train a U-Net in rounds, each followed by a correction on samples of the clients' models."""
    config = context.run_config
    strategy = FedDDPMStrategy(
        FedAvg(fraction_evaluate=0.0),
        sample_fn=sample_with(make_unet, num_inference_steps=20),
        correct_fn=correct_with(make_unet, epochs=2, ema_decay=0.9),
        auxiliary_size=config["auxiliary-size"],
        num_classes=10,
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(make_unet().state_dict()),
        num_rounds=config["num-server-rounds"],
        train_config=ConfigRecord({"lr": config["learning-rate"]}),
        evaluate_fn=evaluate_globally,
    )
    by_round = {number: dict(each) for number, each in result.evaluate_metrics_serverapp.items()}
    if config["result-file"]:
        Path(config["result-file"]).write_text(json.dumps(by_round))


def evaluate_globally(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Test the global U-Net on the test digits."""
    unet = make_unet()
    unet.load_state_dict(arrays.to_torch_state_dict())
    return MetricRecord({"loss": test_unet(unet, load_digits()[1])})
