"""To be imported by whatever forks.

After a fork torch makes its pool of threads anew at the next use, and fails where two threads are the first to use it, as
those are that load a model's weights. So each child uses it at once, while it has one thread.
"""

import os

import torch

os.register_at_fork(after_in_child=lambda: torch.set_num_threads(torch.get_num_threads()))
