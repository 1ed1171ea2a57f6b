"""`python -m bench.cli` is the command `patchbench`."""

from bench.cli.main import main

main()
