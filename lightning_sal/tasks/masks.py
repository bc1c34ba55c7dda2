"""What tasks with masks are measured by: regions as one mask an image, instances as one an object.

A kind of answer is added by a second base class: see `lightning_sal.tasks.saliency`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lightning_sal.samples import ImageGroup
from lightning_sal.tasks.base import Answer, Task
from lightning_sal.tasks.measures import Measure

if TYPE_CHECKING:
    from torch import Tensor


_MORE_OF_REGIONS = {
    "weighted_f": Measure("weighted F", per_image=True, extra=True),
    "iou_max": Measure("IoU max", extra=True),
    "iou_mean": Measure("IoU mean", per_image=True, extra=True),
    "iou_adaptive": Measure("IoU adaptive", per_image=True, extra=True),
    "dice_max": Measure("Dice max", extra=True),
    "dice_mean": Measure("Dice mean", per_image=True, extra=True),
    "dice_adaptive": Measure("Dice adaptive", per_image=True, extra=True),
    "ber_min": Measure("BER min", lower_is_better=True, extra=True),
    "ber_mean": Measure("BER mean", lower_is_better=True, per_image=True, extra=True),
    "ber_adaptive": Measure("BER adaptive", lower_is_better=True, per_image=True, extra=True),
    "specificity_max": Measure("specificity max", extra=True),
    "specificity_mean": Measure("specificity mean", per_image=True, extra=True),
    "specificity_adaptive": Measure("specificity adaptive", per_image=True, extra=True),
    "auc_pr": Measure("AUC PR", per_image=True, extra=True),
    "auc_roc": Measure("AUC ROC", per_image=True, extra=True),
    "si_mae": Measure("SI-MAE", lower_is_better=True, per_image=True, extra=True),
    "si_f_max": Measure("SI-F max", per_image=True, extra=True),
    "si_f_mean": Measure("SI-F mean", per_image=True, extra=True),
    "si_f_adaptive": Measure("SI-F adaptive", per_image=True, extra=True),
    "context": Measure("context", per_image=True, extra=True),
    "boundary_iou": Measure("boundary IoU", per_image=True, extra=True),
    "msiou": Measure("MSIoU", per_image=True, extra=True),
    "hce": Measure("HCE", lower_is_better=True, per_image=True, extra=True),
}
_OF_INSTANCES = ("iasm", "matched_s", "panoptic", "f1")  # metrics that take no scores
_MORE_OF_INSTANCES = {
    "pq": Measure("PQ", extra=True),
    "sq": Measure("SQ", extra=True),
    "rq": Measure("RQ", extra=True),
    "f1_50": Measure("F1 at 0.5", per_image=True, extra=True),
    "f1_70": Measure("F1 at 0.7", per_image=True, extra=True),
}


class MaskTask(Task):
    """A task whose answers become masks."""

    needs = frozenset({"masks"})
    scoring = "lightning_sal.evaluation.scoring"

    @abstractmethod
    def score(
        self, metrics: Mapping[str, Any], masks: Tensor, target: Tensor, scores: Tensor | None
    ) -> dict[str, float]:
        """Add one image to the metrics; returns its own values.

        Args:
            metrics: Name -> metric.
            masks: (N, H, W) masks, or a (1, H, W) map.
            target: The ground truth, (1, H, W) of a region or (I, H, W) of instances.
            scores: (N,) finite numbers, where there are some.
        """

    def update(
        self,
        metrics: Mapping[str, Any],
        group: ImageGroup,
        answer: Answer | None,
        masks: Sequence[Tensor],
        scores: Tensor | None = None,
    ) -> list[dict[str, float]]:
        """See `Task.update`; a sample without ground truth adds nothing."""
        known = zip(masks, group.masks, strict=True) if group.masks else ()
        return [self.score(metrics, found, target, scores) for found, target in known]

    def correctness(
        self, groups: Sequence[ImageGroup], answers: Sequence[Answer], masks: Sequence[Sequence[Tensor] | None]
    ) -> list[float]:
        """See `Task.correctness`; images of one size are measured together."""
        per_image: list[list[float]] = [[] for _ in groups]
        by_size: dict[tuple[int, ...], list[tuple[int, Tensor, Tensor]]] = defaultdict(list)
        for row, (group, answer, found) in enumerate(zip(groups, answers, masks, strict=True)):
            self.require(group)
            if self.answered(answer):
                for mask, target in zip(found or (), group.masks or (), strict=True):
                    by_size[tuple(mask.shape[1:])].append((row, mask, target.to(mask.device)))
        for same_size in by_size.values():
            rows, found, targets = zip(*same_size, strict=True)
            for row, value in zip(rows, self.image_correctness(found, targets), strict=True):
                per_image[row].append(value)
        return [sum(values) / len(values) if values else 0.0 for values in per_image]

    @abstractmethod
    def image_correctness(self, masks: Sequence[Tensor], targets: Sequence[Tensor]) -> list[float]:
        """The primary measure of each of some images of one size."""


class RegionTask(MaskTask):
    """One salient region an image, the union of what its prompts show.

    Measured by S, E, F and MAE of the mask as a saliency map, and by its IoU. Correctness is the S-measure (Fan et al.
    2017, arXiv:1708.00786).
    """

    masks_per_image = 1
    scoring = "lightning_sal.evaluation.map_scoring"

    def compose(self, masks: Tensor) -> Tensor:
        """The union: (E, H, W) bool -> (1, H, W) bool, empty where E = 0."""
        return masks.any(dim=0, keepdim=True)

    def measures(self) -> dict[str, Measure]:
        """See `Task.measures`."""
        return {
            "s_measure": Measure("S", reported=True, primary=True, per_image=True),
            "e_max": Measure("E max", reported=True),
            "f_max": Measure("F max", reported=True),
            "mae": Measure("MAE", reported=True, lower_is_better=True, per_image=True),
            "e_mean": Measure("E mean", per_image=True),
            "e_adaptive": Measure("E adaptive", per_image=True),
            "f_mean": Measure("F mean", per_image=True),
            "f_adaptive": Measure("F adaptive", per_image=True),
            "giou": Measure("gIoU", per_image=True, overlap=True),
            "ciou": Measure("cIoU"),
            **_MORE_OF_REGIONS,
        }

    def settings(self) -> dict[str, Any]:
        """See `Task.settings`; a mask is its own normalised map."""
        from lightning_sal.maps.conventions import CONVENTIONS

        return {"convention": asdict(CONVENTIONS["ours"])}

    def metrics(self, normalize: bool = False, weighted_f: bool = False, everything: bool = False) -> dict[str, Any]:
        """New metrics.

        Args:
            normalize: Whether each saliency map is stretched to [0, 1] first.
            weighted_f: Whether the weighted F-measure is wanted too, which takes several times as long.
            everything: Whether all measures are wanted, which takes a hundred times as long.
        """
        from lightning_sal import metrics

        usual = {
            "maps": metrics.SaliencySuite(weighted_f or everything, normalize),
            "iou": metrics.MaskIoU(normalize=normalize),
        }
        if not everything:
            return usual
        return usual | {
            "overlaps": metrics.OverlapMeasures(normalize),
            "size_invariant": metrics.SizeInvariantMeasures(normalize),
            "context": metrics.ContextMeasure(normalize),
            "boundary_iou": metrics.BoundaryIoU(normalize=normalize),
            "msiou": metrics.MultiScaleIoU(normalize),
            "hce": metrics.HumanCorrectionEffort(normalize),
        }

    def score(
        self, metrics: Mapping[str, Any], masks: Tensor, target: Tensor, scores: Tensor | None
    ) -> dict[str, float]:
        """See `MaskTask.score`."""
        return _scored({name: metric(masks, target) for name, metric in metrics.items()})

    def image_correctness(self, masks: Sequence[Tensor], targets: Sequence[Tensor]) -> list[float]:
        """The S-measure of each image."""
        import torch

        from lightning_sal.metrics.functional import structure_measure

        return structure_measure(torch.cat(list(masks)), torch.cat(list(targets))).tolist()


class InstanceTask(MaskTask):
    """One mask an object, each from a prompt of its own.

    Measured by IASM, the mean S-measure after Hungarian matching over matched and unmatched instances alike; by what matched
    pairs alone earn of it, which is the correctness; and by average precision.
    """

    masks_per_image = None
    scoring = "lightning_sal.evaluation.instance_scoring"

    def measures(self) -> dict[str, Measure]:
        """See `Task.measures`."""
        return {
            "ap50": Measure("AP50", reported=True, overlap=True),
            "ap70": Measure("AP70", reported=True),
            "iasm": Measure("IASM", reported=True, per_image=True),
            "matched_s": Measure("matched S", primary=True, per_image=True),
            "ap": Measure("AP"),
            "ap_50_70": Measure("mean of AP50, AP70"),
            **_MORE_OF_INSTANCES,
        }

    def metrics(self, everything: bool = False, **_: Any) -> dict[str, Any]:
        """New metrics; what only maps have options for is passed over.

        Args:
            everything: Whether all measures are wanted.
        """
        from lightning_sal import metrics

        usual = {
            "iasm": metrics.InstanceAlignedStructureMeasure(),
            "matched_s": metrics.MatchedStructureMeasure(),
            "ap": metrics.InstanceAveragePrecision(),
        }
        return usual | ({"panoptic": metrics.PanopticQuality(), "f1": metrics.InstanceF1()} if everything else {})

    def score(
        self, metrics: Mapping[str, Any], masks: Tensor, target: Tensor, scores: Tensor | None
    ) -> dict[str, float]:
        """See `MaskTask.score`."""
        precision = metrics["ap"](masks, target, scores)
        # A task that is built on this one may have metrics of its own beside, which are not of masks
        others = {name: metrics[name](masks, target) for name in _OF_INSTANCES if name in metrics}
        return _scored(others | {"ap": precision})

    def image_correctness(self, masks: Sequence[Tensor], targets: Sequence[Tensor]) -> list[float]:
        """What matched pairs earn of IASM, of each image."""
        from lightning_sal.metrics.functional import matched_structure_measure
        from lightning_sal.transfer import read

        return [float(value) for value in read(*map(matched_structure_measure, masks, targets))]


def _scored(values: Mapping[str, Tensor | dict[str, Tensor]]) -> dict[str, float]:
    """What metrics gave by their names: those of one value are called by these, others say what theirs are called."""
    from lightning_sal.transfer import read

    found: dict[str, Tensor] = {}
    for name, value in values.items():
        found |= value if isinstance(value, dict) else {name: value}
    return {name: value.item() for name, value in zip(found, read(*found.values()), strict=True)}
