"""Processes, files and devices: what every other room stands on."""
