"""The built-in tasks, by name.

Nothing here names a patcher, and a task sees a `ByteModel`, never tokens or patches. A plug-in needs
`from bench.tasks import Material, Metric, Task, TaskResult, register_task`.
"""

from bench.evaluation.tasks.base import Material, Metric, Task, TaskNotPossible, TaskResult
from bench.evaluation.tasks.bpb import BitsPerByte
from bench.evaluation.tasks.noise import Noise
from bench.evaluation.tasks.probe import Probe
from bench.evaluation.tasks.registry import get, names, register_task
from bench.evaluation.tasks.speed import Speed
from bench.evaluation.tasks.spelling import Spelling

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
