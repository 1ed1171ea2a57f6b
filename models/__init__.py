"""Torch models that know no patcher and no task: the harness, the byte LM, the token LM, and what they cost."""
