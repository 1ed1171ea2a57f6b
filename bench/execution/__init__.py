"""Runs: one, on many workers, under torchrun and on Slurm; plans and status."""
