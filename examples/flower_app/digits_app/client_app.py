"""The client: an ordinary Flower ClientApp, and SecureMod first in its list of mods."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits_app import task
from digits_app.cohort import helpers
from securefl.integrations.flower import Policy, SecureMod


def helps(context: Context) -> bool:
    """Whether this node is the key holder or second server: in the simulation the last one, where a sum needs it.

    In a deployment that node's own configuration says so: securefl-role = "helper".
    """
    node = context.node_config
    return helpers(context.run_config) > 0 and int(node["partition-id"]) == int(node["num-partitions"]) - 1


# For the simulation: its nodes have no files of pinned identities, so they trust the server for whose the public keys
# are; and there are two of them unless more are asked for. A SuperNode with any securefl- setting of its own decides
# both itself: what it does not set is then no less strict than the defaults (three clients, pinned identities).
app = ClientApp(mods=[SecureMod(Policy(allow_unpinned=True, minimum_clients=2), helper=helps)])
plain_app = ClientApp()  # without protection: what the deployment script measures plain FedAvg with


@plain_app.train()
@app.train()
def train(message: Message, context: Context) -> Message:
    given = {name: array.numpy() for name, array in message.content["arrays"].items()}
    config = message.content["config"]
    partition, partitions = int(context.node_config["partition-id"]), int(config["partitions"])
    model, loss = task.train(
        given, partition, partitions, int(config["server-round"]), int(config["steps"]), float(config["rate"])
    )
    metrics = MetricRecord({"num-examples": task.examples_of(partition, partitions), "loss": loss})
    arrays = ArrayRecord({name: Array(value) for name, value in model.items()})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
