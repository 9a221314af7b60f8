"""The client: an ordinary Flower ClientApp, and SecureMod first in its list of mods."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits_app import task
from securefl.integrations.flower import Policy, SecureMod


def helps(context: Context) -> bool:
    """Whether this node is the key holder or second server: in the simulation the last one, where a sum needs it.

    In a deployment that node's own configuration says so: securefl-role = "helper".
    """
    run, node = context.run_config, context.node_config
    needed = run["protect"] == "shared" or (run["protect"] == "ckks" and run["key-model"] != "threshold")
    return needed and int(node["partition-id"]) == int(node["num-partitions"]) - 1


# The simulation's nodes have no files of pinned identities, so they trust the server for whose the public keys are. A
# SuperNode with any securefl- setting of its own decides that itself.
app = ClientApp(mods=[SecureMod(Policy(allow_unpinned=True), helper=helps)])
plain_app = ClientApp()  # without protection: what the deployment script measures plain FedAvg with


@plain_app.train()
@app.train()
def train(message: Message, context: Context) -> Message:
    given = {name: array.numpy() for name, array in message.content["arrays"].items()}
    partition, partitions = int(context.node_config["partition-id"]), int(context.run_config["nodes"])
    config = message.content["config"]
    model, loss = task.train(
        given, partition, partitions, int(config["server-round"]), int(config["steps"]), float(config["rate"])
    )
    metrics = MetricRecord({"num-examples": task.examples_of(partition, partitions), "loss": loss})
    arrays = ArrayRecord({name: Array(value) for name, value in model.items()})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
