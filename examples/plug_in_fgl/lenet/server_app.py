"""ServerApp of the project: FedAvg as before, inside FGL."""

import json
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fgl_app.plug_in import synthesize_with, train_on_synthetic
from fgl_app.strategies import FGLStrategy
from lenet.task import Net, load_digits
from lenet.task import test as test_net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train LeNet on synthetic digits, then in rounds on the digits of the clients."""
    config = context.run_config
    strategy = FGLStrategy(
        FedAvg(),
        synthesize_fn=synthesize_with(
            "embedded",
            image_size=32,
            channels=1,
            images_per_class=config["images-per-class"],
            num_inference_steps=10,
            guidance_scale=1.0,
        ),
        train_fn=train_on_synthetic(Net, epochs=15, batch_size=32),
        correct_fn=train_on_synthetic(Net, epochs=2, batch_size=32, seed=1),
        num_classes=10,
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=config["num-server-rounds"],
        train_config=ConfigRecord({"lr": config["learning-rate"]}),
        evaluate_fn=evaluate_globally,
    )
    by_round = {number: dict(each) for number, each in result.evaluate_metrics_serverapp.items()}
    if config["result-file"]:
        Path(config["result-file"]).write_text(json.dumps(by_round))


def evaluate_globally(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Test the global net on the test digits."""
    net = Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    accuracy, loss = test_net(net, load_digits()[1])
    return MetricRecord({"accuracy": accuracy, "loss": loss})
