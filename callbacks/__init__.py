"""Callbacks, each usable in other Lightning projects: its docstring names the little it asks of a module."""

from lightning_sal.callbacks.interleaved_sft import InterleavedSFT

__all__ = ["InterleavedSFT"]
