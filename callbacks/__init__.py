"""Callbacks, each usable in other Lightning projects: its docstring names the little it asks of a module.

What there is stands in `__init__.pyi`. Each loads when it is asked for, so none waits for what another one needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
