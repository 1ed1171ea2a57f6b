"""Documents as bytes: where they come from, their splits, and their cuts on disk."""
