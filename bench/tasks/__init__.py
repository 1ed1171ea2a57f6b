"""The tasks by name.

Nothing here names a patcher, and a task sees a `ByteModel`, never tokens or patches. A plug-in needs
`from bench.tasks import Material, Metric, Task, TaskResult, register_task`.
"""

from bench.tasks.base import Material, Metric, Task, TaskNotPossible, TaskResult
from bench.tasks.bpb import BitsPerByte
from bench.tasks.noise import Noise
from bench.tasks.registry import get, names, register_task
from bench.tasks.speed import Speed

__all__ = [
    "BitsPerByte",
    "Material",
    "Metric",
    "Noise",
    "Speed",
    "Task",
    "TaskNotPossible",
    "TaskResult",
    "get",
    "names",
    "register_task",
]
