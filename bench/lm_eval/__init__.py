"""lm-evaluation-harness: our models in it, our tasks for it."""
