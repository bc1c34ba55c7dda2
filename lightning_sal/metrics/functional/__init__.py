"""The metrics as pure functions of tensors, batched on the tensors' own device."""

from lightning_sal.metrics.functional.absolute_error import mean_absolute_error
from lightning_sal.metrics.functional.instance_structure import instance_aligned_structure_measure
from lightning_sal.metrics.functional.structure import structure_measure

__all__ = ["instance_aligned_structure_measure", "mean_absolute_error", "structure_measure"]
