from .absolute_error import MeanAbsoluteError
from .average_precision import InstanceAveragePrecision
from .boundaries import BoundaryIoU, MultiScaleIoU
from .box_average_precision import BoxAveragePrecision
from .calibration import ConfidenceCalibration
from .context import ContextMeasure
from .counting import CountAccuracy, TargetAccuracy
from .detection import BoxPrecisionRecall
from .enhanced_alignment import EnhancedAlignmentMeasure
from .f_measure import FMeasure, WeightedFMeasure
from .faithfulness import InsertionDeletion
from .human_correction import HumanCorrectionEffort
from .instance_structure import InstanceAlignedStructureMeasure, MatchedStructureMeasure
from .localisation import EnergyPointingGame, PointingGame
from .mask_iou import MaskIoU
from .overlaps import OverlapMeasures
from .panoptic import InstanceF1, PanopticQuality
from .size_invariance import SizeInvariantMeasures
from .structure import StructureMeasure
from .suite import SaliencySuite

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
