"""Where the runs of a suite are done: `launch:` in its YAML. It says nothing about what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class LaunchConfig:
    """How many runs there are at a time, and how one is spread over ranks."""

    workers: Count | None = None  # runs at a time; by default one a GPU, or one
    time_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # seconds that one run may take
    devices: Count = 1  # ranks that one run is spread over, by torchrun
    parallel: Literal["ddp", "fsdp"] = "ddp"
    micro_bytes: Count | None = None  # that a rank looks at together; by default its share of a batch
    recompute: bool = False  # activations of blocks on the way back, instead of keeping them
