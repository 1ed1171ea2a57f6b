"""Vocabularies of tokens, their encodings, and tokens as patches."""
