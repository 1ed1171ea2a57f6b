"""`python -m bench.cli` is the command `patchbench`."""

import sys

from bench.cli.main import main

sys.exit(main())
