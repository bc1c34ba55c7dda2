"""What methods of explanation are compared by, each on the same responses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_sal.explanations.cases import Case
from lightning_sal.explanations.faithfulness import Pictures, on_pixels
from lightning_sal.inference.maps import LabelMaps
from lightning_sal.metrics.faithfulness import FaithfulnessCurves, InsertionDeletion
from lightning_sal.metrics.localisation import EnergyPointingGame, PointingGame
from lightning_sal.rewards.regions import Annotated
from lightning_sal.tasks import Measure


class Measures:
    """The measures of one method over all responses.

    A response has the map of its whole answer, the sum of those of its labels. It is compared with the union of the regions
    of each image, the masks of a task that has masks, else the boxes, where they are known.
    """

    def __init__(self) -> None:
        self.energy, self.pointing, self.faithfulness = EnergyPointingGame(), PointingGame(), InsertionDeletion()

    def add(self, maps: LabelMaps, pictures: Pictures, regions: Sequence[Tensor], ends: Tensor) -> dict[str, float]:
        """Add a response.

        Args:
            maps: Of each label and image.
            pictures: Of its case.
            regions: K masks (H, W), as `regions_of` gives them; none where they are unknown.
            ends: (2,) scores of the blank and the whole picture.

        Returns:
            Its own values.
        """
        images, points = pictures.case.group.images, self.faithfulness.points
        heavy = on_pixels(maps, images, positive=True) if regions else ()
        # An image without an object has no share, and nothing to point at
        pointed = [pair for pair in zip(heavy, regions, strict=True) if pair[1].any()]
        ranked = on_pixels(maps, images)
        deletion = pictures.scores(pictures.between(ranked, points, "deletion"))
        insertion = pictures.scores(pictures.between(ranked, points, "insertion"))
        own = Measures()
        for measures in (self, own):
            for map, region in pointed:
                measures.energy.update(map[None], region[None])
                measures.pointing.update(map[None], region[None])
            measures.faithfulness.update(deletion[None], insertion[None], ends[:1], ends[1:])
        return own.values()

    def values(self) -> dict[str, float]:
        """Name -> mean; those of regions only where some are known."""
        found = self.faithfulness.compute()
        if self.energy.total:
            found = {"energy_pointing_game": self.energy.compute(), "pointing_game": self.pointing.compute()} | found
        return {name: float(value) for name, value in found.items() if not math.isnan(value)}

    def curves(self) -> FaithfulnessCurves:
        """The mean curves."""
        return self.faithfulness.curves()


def columns() -> dict[str, Measure]:
    """Name -> what each of the values is, in the order of a table."""
    found = {name: Measure(name.replace("_", " "), reported=True) for name in ("energy_pointing_game", "pointing_game")}
    for curve in ("deletion", "insertion"):
        lower = curve == "deletion"
        for percent in (f"{100 * share:g}" for share in InsertionDeletion().shares):
            found[f"{curve}_{percent}"] = Measure(f"{curve} {percent} %", lower_is_better=lower, reported=True)
        found[f"{curve}_auc"] = Measure(f"{curve} area", lower_is_better=lower, reported=True)
    return found | {"undefined": Measure("undefined", lower_is_better=True)}


def regions_of(case: Case) -> tuple[Tensor, ...]:
    """K masks (H, W) on the CPU: the union of the regions that matter; none where they are unknown."""
    group = case.group
    if group.masks is None and group.boxes is None:
        return ()
    return tuple(regions.cpu().any(0) for regions in Annotated()(group))


def ends_of(pictures: Pictures) -> Tensor:
    """(2,) scores of the blank and the whole picture."""
    return torch.cat([pictures.scores([each]) for each in (pictures.blank, pictures.case.group.images)])
