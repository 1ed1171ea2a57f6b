"""Plots, drawn from the same comparison as the tables."""
