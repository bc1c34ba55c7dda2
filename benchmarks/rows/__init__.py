"""The rows of `real_size.py`."""
