"""Pretrained models of the library `transformers` as byte models."""
