"""The metrics as pure functions of tensors, batched on the tensors' own device."""

from lightning_sal.metrics.functional.absolute_error import mean_absolute_error
from lightning_sal.metrics.functional.average_precision import average_precision, match_instances
from lightning_sal.metrics.functional.boundaries import boundary_iou, multi_scale_iou
from lightning_sal.metrics.functional.box_iou import area_shares, box_iou
from lightning_sal.metrics.functional.boxes import boxes_to_mask
from lightning_sal.metrics.functional.calibration import ReliabilityCurve, expected_calibration_error, response_types
from lightning_sal.metrics.functional.context import context_measure
from lightning_sal.metrics.functional.detection import count_matches, precision_recall_f1
from lightning_sal.metrics.functional.enhanced_alignment import adaptive_enhanced_alignment, enhanced_alignment_curve
from lightning_sal.metrics.functional.f_measure import FMeasureCurves, adaptive_f_measure, f_measure_curves
from lightning_sal.metrics.functional.faithfulness import (
    area_under_curve,
    blurred,
    deletion_order,
    normalised,
    perturbed,
)
from lightning_sal.metrics.functional.human_correction import human_correction_effort
from lightning_sal.metrics.functional.instance_structure import (
    instance_aligned_structure_measure,
    matched_structure_measure,
)
from lightning_sal.metrics.functional.localisation import (
    alignment_weights,
    energy_pointing_game,
    mass_share,
    pointing_game,
)
from lightning_sal.metrics.functional.mask_iou import mask_iou
from lightning_sal.metrics.functional.overlaps import adaptive_overlaps, curve_areas, overlap_curves
from lightning_sal.metrics.functional.panoptic import PanopticQualities, instance_f1, panoptic_quality
from lightning_sal.metrics.functional.run_lengths import run_length_iou
from lightning_sal.metrics.functional.size_invariance import SizeInvariantScores, size_invariant_measures
from lightning_sal.metrics.functional.structure import structure_measure
from lightning_sal.metrics.functional.weighted_f_measure import weighted_f_measure

__all__ = [
    "FMeasureCurves",
    "PanopticQualities",
    "ReliabilityCurve",
    "SizeInvariantScores",
    "adaptive_enhanced_alignment",
    "adaptive_f_measure",
    "adaptive_overlaps",
    "alignment_weights",
    "area_shares",
    "area_under_curve",
    "average_precision",
    "blurred",
    "boundary_iou",
    "box_iou",
    "boxes_to_mask",
    "context_measure",
    "count_matches",
    "curve_areas",
    "deletion_order",
    "energy_pointing_game",
    "enhanced_alignment_curve",
    "expected_calibration_error",
    "f_measure_curves",
    "human_correction_effort",
    "instance_aligned_structure_measure",
    "instance_f1",
    "mask_iou",
    "mass_share",
    "match_instances",
    "matched_structure_measure",
    "mean_absolute_error",
    "multi_scale_iou",
    "normalised",
    "overlap_curves",
    "panoptic_quality",
    "perturbed",
    "pointing_game",
    "precision_recall_f1",
    "response_types",
    "run_length_iou",
    "size_invariant_measures",
    "structure_measure",
    "weighted_f_measure",
]
