"""Pages of `docs/` that are made from the code: `PYTHONPATH=tests python -m pages.reference`, `pages.architecture`."""
