"""ClientApp of the project: training and evaluation as before, and one call for FGL."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fgl_app.plug_in import PromptData, register_fgl
from lenet.task import Net, load_data, train
from lenet.task import test as test_net

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

app = ClientApp()


def local_data(context: Context):
    """Return the digits of the client of a context."""
    return load_data(context.node_config["partition-id"], context.node_config["num-partitions"])


register_fgl(
    app,
    dataset_fn=lambda context: PromptData(local_data(context).tensors[1]),
    class_names=NAMES,
    generator="embedded",
    prompt_template="a handwritten digit {label}",
)


def received(message: Message):
    """Return the received net."""
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return net


@app.train()
def train_locally(message: Message, context: Context) -> Message:
    """Train the net on the digits of this client."""
    net, data = received(message), local_data(context)
    loss = train(net, data, epochs=1, lr=message.content["config"]["lr"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(data)})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the net on the digits of this client."""
    data = local_data(context)
    accuracy, loss = test_net(received(message), data)
    metrics = MetricRecord({"accuracy": accuracy, "loss": loss, "num-examples": len(data)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
