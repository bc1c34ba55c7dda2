"""Arrays of either kind: numpy's, or torch's."""

from __future__ import annotations

import sys
from typing import Any

Array = Any  # a numpy array or a tensor, float64 unless said otherwise
EPS = sys.float_info.epsilon  # what the authors' MATLAB code puts below fractions
