"""Numbers of cuts alone: what can be said of a patcher without a model and without training one."""
