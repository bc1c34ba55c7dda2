"""Metrics of saliency and perception for torchmetrics: sums of fixed size, so ranks may see different numbers of images."""

from lightning_sal.metrics.absolute_error import MeanAbsoluteError
from lightning_sal.metrics.average_precision import InstanceAveragePrecision
from lightning_sal.metrics.boundaries import BoundaryIoU, MultiScaleIoU
from lightning_sal.metrics.box_average_precision import BoxAveragePrecision
from lightning_sal.metrics.calibration import ConfidenceCalibration
from lightning_sal.metrics.context import ContextMeasure
from lightning_sal.metrics.counting import CountAccuracy, TargetAccuracy
from lightning_sal.metrics.detection import BoxPrecisionRecall
from lightning_sal.metrics.enhanced_alignment import EnhancedAlignmentMeasure
from lightning_sal.metrics.f_measure import FMeasure, WeightedFMeasure
from lightning_sal.metrics.faithfulness import InsertionDeletion
from lightning_sal.metrics.human_correction import HumanCorrectionEffort
from lightning_sal.metrics.instance_structure import InstanceAlignedStructureMeasure, MatchedStructureMeasure
from lightning_sal.metrics.localisation import EnergyPointingGame, PointingGame
from lightning_sal.metrics.mask_iou import MaskIoU
from lightning_sal.metrics.overlaps import OverlapMeasures
from lightning_sal.metrics.panoptic import InstanceF1, PanopticQuality
from lightning_sal.metrics.size_invariance import SizeInvariantMeasures
from lightning_sal.metrics.structure import StructureMeasure
from lightning_sal.metrics.suite import SaliencySuite

__all__ = [
    "BoundaryIoU",
    "BoxAveragePrecision",
    "BoxPrecisionRecall",
    "ConfidenceCalibration",
    "ContextMeasure",
    "CountAccuracy",
    "EnergyPointingGame",
    "EnhancedAlignmentMeasure",
    "FMeasure",
    "HumanCorrectionEffort",
    "InsertionDeletion",
    "InstanceAlignedStructureMeasure",
    "InstanceAveragePrecision",
    "InstanceF1",
    "MaskIoU",
    "MatchedStructureMeasure",
    "MeanAbsoluteError",
    "MultiScaleIoU",
    "OverlapMeasures",
    "PanopticQuality",
    "PointingGame",
    "SaliencySuite",
    "SizeInvariantMeasures",
    "StructureMeasure",
    "TargetAccuracy",
    "WeightedFMeasure",
]
