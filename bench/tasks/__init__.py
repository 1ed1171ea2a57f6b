"""The tasks by name.

Nothing here names a patcher, and a task sees a `ByteModel`, never tokens or patches.
"""

from bench.tasks.base import Metric, Task, TaskResult
from bench.tasks.bpb import BitsPerByte
from bench.tasks.speed import Speed

TASKS: dict[str, type[Task]] = {task.name: task for task in (BitsPerByte, Speed)}

__all__ = ["TASKS", "Metric", "Task", "TaskResult"]
