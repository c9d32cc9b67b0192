"""Decoding with keys and values kept: pages of memory, attention over them, and running batches."""
