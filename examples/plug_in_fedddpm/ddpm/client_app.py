"""ClientApp of the project: training as before, and one call for FedDDPM."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ddpm.task import load_data, make_unet, train
from fgl_app.plug_in import LabeledLatents, register_fedddpm

app = ClientApp()


def local_data(context: Context):
    """Return the digits of the client of a context."""
    return load_data(context.node_config["partition-id"], context.node_config["num-partitions"])


register_fedddpm(
    app,
    dataset_fn=lambda context: LabeledLatents(*local_data(context).tensors),
    unet_fn=make_unet,
    epochs=1,
    min_steps=200,
)


@app.train()
def train_locally(message: Message, context: Context) -> Message:
    """Train the U-Net on the digits of this client."""
    unet, data = make_unet(), local_data(context)
    unet.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loss = train(unet, data, epochs=1, lr=message.content["config"]["lr"])
    metrics = MetricRecord({"train-loss": loss, "num-examples": len(data)})
    content = RecordDict({"arrays": ArrayRecord(unet.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)
