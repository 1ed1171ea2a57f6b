"""Byte models whose scores decide where patches begin, and streams over them."""
