"""Strict YAML into frozen dataclasses: what is trained and compared."""
