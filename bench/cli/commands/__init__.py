"""The commands of `patchbench`, a module for each group."""
