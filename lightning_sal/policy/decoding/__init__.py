"""Decoding: one token of each response a step, on buffers that are allocated once."""
