"""What vLLM's own processor makes of images: run by a Python that has vLLM, `vllm_pixels.py MODEL FOLDER LIMITS`.

Reads 0.png, 1.png, ... from the folder and writes 0.npy, 1.npy, ... beside them. LIMITS are processor arguments as JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from vllm.engine.arg_utils import EngineArgs  # pyright: ignore[reportMissingImports]
from vllm.multimodal import MULTIMODAL_REGISTRY  # pyright: ignore[reportMissingImports]

model, folder, limits = sys.argv[1:]
arguments = EngineArgs(
    model=model,
    dtype="float32",
    limit_mm_per_prompt={"image": 1, "video": 0},
    mm_processor_kwargs=json.loads(limits),
)
config = arguments.create_model_config()
processor = MULTIMODAL_REGISTRY.create_processor(config)
for path in sorted(Path(folder).glob("*.png")):
    items = processor.info.parse_mm_data({"image": [Image.open(path).convert("RGB")]})
    prompt = "<|vision_start|><|image_pad|><|vision_end|>"
    (item,) = processor(prompt, items)["mm_kwargs"]["image"]
    np.save(path.with_suffix(".npy"), item["pixel_values"].data.float().numpy())
