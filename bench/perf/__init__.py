"""Speed as ratios measured in one run: scripts for `python -m`."""
