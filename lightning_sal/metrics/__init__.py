"""Metrics of saliency and perception for torchmetrics: sums of fixed size, so ranks may see different numbers of images.

What there is stands in `__init__.pyi`, and is loaded when it is asked for: `functional` does not wait for torchmetrics.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
