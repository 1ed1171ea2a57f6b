"""A task that looks at the worst documents alone."""

import math

from bench.tasks import ByteModel, Material, Metric, Task, TaskResult, register_task


@register_task("example_worst")
class Worst(Task):
    """Bits per byte of the test documents that cost most, `share` of them."""

    share: float = 0.1

    def run(self, model: ByteModel, material: Material) -> TaskResult:
        nats = model.nats([document.data for document in material.test])
        scored = zip(material.test, nats, strict=True)
        rows = [(d.id, float(n.sum()) / math.log(2), float(len(d.data))) for d, n in scored]
        rows.sort(key=lambda row: -row[1] / row[2])
        return TaskResult({"bpb": Metric("bits/byte", rows[: max(1, round(self.share * len(rows)))])})
