"""torchrun as `patchbench run` begins it: it ends, and its ranks with it, when the process is gone that began it.

`python -m bench.execution.torchrun_agent` takes torchrun's own arguments.
"""

from __future__ import annotations

import os
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException

from bench.system.processes import PARENT, stop_with_parent
from bench.system.signals import EXIT_CODE, STOPS_WITHIN


def main() -> None:
    stop_with_parent(2 * STOPS_WITHIN)  # it waits for its ranks meanwhile
    os.environ[PARENT] = str(os.getpid())  # the ranks' parent
    try:
        run.main()
    except SignalException:  # its ranks have stopped, each with its own word
        sys.exit(EXIT_CODE)


if __name__ == "__main__":
    main()
