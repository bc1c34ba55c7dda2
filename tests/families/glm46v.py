"""GLM-4.6V: the parts of GLM-4.1V by classes of its own."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
)

from tests.families.glm4v import build_glm


def build(folder: Path) -> None:
    parts = (Glm46VProcessor, Glm46VImageProcessor, Glm46VVideoProcessor)
    build_glm(folder, Glm46VForConditionalGeneration, Glm46VConfig, *parts)
