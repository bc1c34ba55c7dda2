"""Where data and models lie, stated once for all configs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paths:
    """Folders and names that other values of a config take, as `${paths.data}/DUTS-TR`.

    Args:
        data: Folder that holds the datasets.
        policy: Folder or hub name of the multimodal LLM that training starts from.
        segmenter: Folder or hub name of the published segmenter, which takes words.
        sam2: File of the published SAM2, which takes boxes and points.
        runs: Folder that training writes to.
    """

    data: str = "data"
    policy: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    segmenter: str = "YxZhang/evf-sam2-multitask"
    sam2: str = "weights/sam2_hiera_large.pt"
    runs: str = "runs"
