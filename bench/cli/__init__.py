"""The command `patchbench`: arguments in, the other rooms called, text out."""
