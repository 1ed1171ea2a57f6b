"""Campaigns against patchbench itself: scripts that do it harm for minutes and say what it did not stand."""
