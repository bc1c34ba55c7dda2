"""Writes quantus_values.json: what Quantus 0.6.0 gives for maps, masks and a score that are drawn here.

Quantus is LGPL and brings an OpenCV of its own, so it is no dependency. Where it is installed, beside torch:
`python tests/metrics/quantus_values.py`.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import quantus  # type: ignore[import-not-found]
import torch

COUNT, HEIGHT, WIDTH, PIXELS_A_STEP = 8, 7, 9, 7


class Score(torch.nn.Module):
    """sqrt(sum over pixels of weight * (grey / 255)^2), twice as the scores of two classes."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.weight = torch.from_numpy(weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        score = (self.weight * (images.double()[:, 0] / 255) ** 2).sum((1, 2)).sqrt()
        return torch.stack([score, score], 1)


def main() -> None:
    draw = np.random.default_rng(0)
    maps = draw.permutation(COUNT * HEIGHT * WIDTH).reshape(COUNT, HEIGHT, WIDTH) / 100  # no two values alike
    masks = draw.random((COUNT, HEIGHT, WIDTH)) > 0.6
    images = draw.integers(1, 256, (COUNT, HEIGHT, WIDTH))
    images[:, 3, 4] = 0  # Quantus takes the least value of all images as black
    weight = draw.random((HEIGHT, WIDTH))
    given = {
        "model": Score(weight).eval(),
        "x_batch": images[:, None].astype(np.float64),
        "y_batch": np.zeros(COUNT, dtype=int),
        "a_batch": maps[:, None].copy(),
        "channel_first": True,
    }
    plain = {"abs": False, "normalise": False, "disable_warnings": True}
    flipping = quantus.PixelFlipping(features_in_step=PIXELS_A_STEP, **plain)(**given, softmax=False)
    mass = quantus.RelevanceMassAccuracy(**plain)(**given, s_batch=masks[:, None])
    pointing = quantus.PointingGame(**plain)(**given, s_batch=masks[:, None])
    values = {
        "quantus": quantus.__version__,
        "maps": maps.tolist(),
        "masks": masks.astype(int).tolist(),
        "images": images.tolist(),
        "weight": weight.tolist(),
        "pixels_a_step": PIXELS_A_STEP,
        "relevance_mass_accuracy": [float(value) for value in mass],
        "pointing_game": [float(value) for value in pointing],
        "pixel_flipping": np.array(flipping).tolist(),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(values) + "\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
