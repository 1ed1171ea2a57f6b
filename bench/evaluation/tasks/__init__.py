"""The tasks by name.

Nothing here names a patcher, and a task sees a `ByteModel`, never tokens or patches. A plug-in needs
`from bench.tasks import Material, Metric, Task, TaskResult, register_task`.
"""

from bench.tasks.base import Material, Metric, Task, TaskNotPossible, TaskResult
from bench.tasks.bpb import BitsPerByte
from bench.tasks.noise import Noise
from bench.tasks.probe import Probe
from bench.tasks.registry import get, names, register_task
from bench.tasks.speed import Speed
from bench.tasks.spelling import Spelling

__all__ = [
    "BitsPerByte",
    "Material",
    "Metric",
    "Noise",
    "Probe",
    "Speed",
    "Spelling",
    "Task",
    "TaskNotPossible",
    "TaskResult",
    "get",
    "names",
    "register_task",
]
