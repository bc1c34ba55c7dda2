"""Callbacks, each usable in other Lightning projects: its docstring names the little it asks of a module."""
