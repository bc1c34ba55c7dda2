"""Metrics of saliency and perception for torchmetrics: sums of fixed size, so ranks may see different numbers of images."""

from lightning_sal.metrics.absolute_error import MeanAbsoluteError
from lightning_sal.metrics.average_precision import InstanceAveragePrecision
from lightning_sal.metrics.box_average_precision import BoxAveragePrecision
from lightning_sal.metrics.calibration import ConfidenceCalibration
from lightning_sal.metrics.counting import CountAccuracy, TargetAccuracy
from lightning_sal.metrics.detection import BoxPrecisionRecall
from lightning_sal.metrics.enhanced_alignment import EnhancedAlignmentMeasure
from lightning_sal.metrics.f_measure import FMeasure, WeightedFMeasure
from lightning_sal.metrics.faithfulness import InsertionDeletion
from lightning_sal.metrics.instance_structure import InstanceAlignedStructureMeasure, MatchedStructureMeasure
from lightning_sal.metrics.localisation import EnergyPointingGame, PointingGame
from lightning_sal.metrics.mask_iou import MaskIoU
from lightning_sal.metrics.structure import StructureMeasure
from lightning_sal.metrics.suite import SaliencySuite

__all__ = [
    "BoxAveragePrecision",
    "BoxPrecisionRecall",
    "ConfidenceCalibration",
    "CountAccuracy",
    "EnergyPointingGame",
    "EnhancedAlignmentMeasure",
    "FMeasure",
    "InsertionDeletion",
    "InstanceAlignedStructureMeasure",
    "InstanceAveragePrecision",
    "MaskIoU",
    "MatchedStructureMeasure",
    "MeanAbsoluteError",
    "PointingGame",
    "SaliencySuite",
    "StructureMeasure",
    "TargetAccuracy",
    "WeightedFMeasure",
]
