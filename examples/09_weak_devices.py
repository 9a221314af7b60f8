"""Two ways to spare a weak device, on digits with 8 clients.

Part by part: the device trains one part of the model at a time and sends that part through a masked sum. Edge and
cloud: the device keeps the first and the last layer and the labels, a server has the layer between; activations travel
on an 8-bit grid, which is no protection against that server (protocols/split/SPEC.md says what is).
"""

from __future__ import annotations

import copy

from torch import nn

from securefl.encoding.quantize import FixedPoint
from securefl.fl import models
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.config import parse
from securefl.fl.decomposition import train_by_parts, training_values
from securefl.fl.protections import protection_named
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalTraining, torch_threads
from securefl.fl.workload import prepare
from securefl.split import SplitSettings, SplitTraining, cut
from securefl.types import ClientId

workload = prepare(parse({"data": {"clients": 8, "partition": "iid"}, "model": {"hidden": [64, 48]}}))
BATCH = 16
whole = training_values(workload.model, workload.train.input_shape, BATCH)
print(f"the whole model: {whole:,} numbers while it is trained")

# ---- part by part ---------------------------------------------------------------------------------------------------

aggregator = ProtectedAggregator(protection_named("masked", "x25519"), 5, FixedPoint(1.0, 16), 256)
with torch_threads(1):
    trained = train_by_parts(workload, 3, aggregator, LocalTraining(batch_size=BATCH), rounds=6)
for part in trained.parts:
    print(
        f"part {part.part}: {part.parameters:,} parameters trained, {part.values:,} numbers held, "
        f"{part.upload_bytes:,.0f} bytes up per round, accuracy so far {part.accuracy:.3f}"
    )
assert max(part.values for part in trained.parts) < whole
assert trained.accuracy > 0.6

# ---- edge and cloud -------------------------------------------------------------------------------------------------

model = copy.deepcopy(workload.model)
names = [name for name, layer in model.named_children() if isinstance(layer, nn.Linear)]
parts = cut(model, after=names[0], until=names[1])  # edge: first layer, last layer, labels; cloud: what is between
clients = {ClientId(i): workload.train.subset(rows) for i, rows in enumerate(workload.rows, start=1)}
settings = SplitSettings(protect="quantized", rounds=3, batch_size=BATCH, learning_rate=0.05)
split = SplitTraining(parts, clients, workload.test, settings, SeedTree(0), suite="x25519")
for record in split.rounds():
    print(
        f"edge and cloud, round {record.round}: accuracy {record.accuracy:.3f}, "
        f"{record.up:,.0f} bytes up and {record.down:,.0f} down per example"
    )
edge = sum(parameter.numel() for part in (parts.front, parts.head) if part for parameter in part.parameters())
print(f"the edge trains {edge:,} of {sum(v.size for v in models.tensors_of(workload.model).values()):,} parameters")
assert record.accuracy > 0.6
