"""Public imports for task plug-ins: `from bench.tasks import Material, Metric, Task, TaskResult, register_task`."""

from bench.evaluation.byte_model import ByteModel
from bench.evaluation.tasks import Material, Metric, Task, TaskNotPossible, TaskResult, register_task

__all__ = ["ByteModel", "Material", "Metric", "Task", "TaskNotPossible", "TaskResult", "register_task"]
