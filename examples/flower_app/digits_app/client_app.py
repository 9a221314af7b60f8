"""The client: an ordinary Flower ClientApp, and SecureMod first in its list of mods."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits_app import task
from securefl.integrations.flower import SecureMod

app = ClientApp(mods=[SecureMod()])
plain_app = ClientApp()  # without protection: what the deployment script measures plain FedAvg with


@plain_app.train()
@app.train()
def train(message: Message, context: Context) -> Message:
    given = {name: array.numpy() for name, array in message.content["arrays"].items()}
    partition, partitions = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    config = message.content["config"]
    model, loss = task.train(
        given, partition, partitions, int(config["server-round"]), int(config["steps"]), float(config["rate"])
    )
    metrics = MetricRecord({"num-examples": task.examples_of(partition, partitions), "loss": loss})
    arrays = ArrayRecord({name: Array(value) for name, value in model.items()})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
