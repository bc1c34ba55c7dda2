"""Saliency metrics for torchmetrics: fixed-size sums, so that ranks may see different numbers of images or none."""

from lightning_sal.metrics.absolute_error import MeanAbsoluteError
from lightning_sal.metrics.instance_structure import InstanceAlignedStructureMeasure
from lightning_sal.metrics.structure import StructureMeasure

__all__ = ["InstanceAlignedStructureMeasure", "MeanAbsoluteError", "StructureMeasure"]
