"""The `launch:` section of a suite: workers, devices, Slurm, limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from patchers.errors import BenchError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

OURS = ("array", "error", "job_name", "ntasks", "ntasks_per_node", "nodes", "open_mode", "output", "requeue", "signal")
"""Options of sbatch that make an array of runs what it is; `bench.execution.slurm` sets them."""


@dataclass(frozen=True)
class SlurmConfig:
    """What each run asks Slurm for; the cluster's default where it is left out. All runs are one job array."""

    partition: str | None = None
    time: Count | None = None  # minutes, after which a run goes back into the queue, and on from its checkpoint
    gres: str | None = None  # for instance gpu:1
    cpus: Count | None = None
    memory_gb: Positive | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    options: dict[str, str | int | Literal[True]] = field(default_factory=dict)  # others of sbatch, by their long names
    setup: tuple[str, ...] = ()  # lines of shell before each run, for instance `module load cuda`
    notice: Count = 90  # seconds before its time is over at which a run is told to write its checkpoint
    requeues: Count = 100  # after so many a run has failed

    def __post_init__(self) -> None:
        if self.time is not None and self.time * 60 <= self.notice:
            raise BenchError(
                f"time is {self.time} minutes and notice {self.notice} seconds, so a run would be stopped as soon as "
                "it began: raise time or lower notice"
            )
        for name in self.options:
            plain = name.replace("-", "_")
            if plain in OURS:
                raise BenchError(f"options has {name!r}, which is set for every array of runs; leave it out")
            same = {"cpus_per_task": "cpus", "mem": "memory_gb"}.get(plain, plain)
            if same in self.__dataclass_fields__:
                raise BenchError(f"options has {name!r}, for which there is the key {same}; use that")


@dataclass(frozen=True)
class LaunchConfig:
    """How many runs there are at a time, and how one is spread over ranks."""

    workers: Count | None = None  # runs at a time; by default one a GPU, or one; in Slurm as many as it lets
    time_limit: Positive | None = None  # seconds that one run may take
    devices: Count = 1  # ranks that one run is spread over, by torchrun
    parallel: Literal["ddp", "fsdp"] = "ddp"
    micro_bytes: Count | None = None  # that a rank looks at together; by default its share of a batch
    recompute: bool = False  # activations of blocks on the way back, instead of keeping them
    slurm: SlurmConfig | None = None  # here where it is left out
