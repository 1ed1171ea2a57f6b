"""A trained model as a byte model, the tasks that measure it, and the audits of its probabilities."""
