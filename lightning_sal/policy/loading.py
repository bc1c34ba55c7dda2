"""Load a multimodal LLM of transformers, and freeze what is not trained."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from lightning_sal.files.loading import built_from, refuse_non_finite
from lightning_sal.files.reading import read_object
from lightning_sal.internals.hub import is_hub_name, require_hub
from lightning_sal.internals.notices import without_bars
from lightning_sal.internals.shell import installing
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.parts import language_parameters, seeing
from lightning_sal.tiny.scratch import SCRATCH_POLICIES
from lightning_sal.tiny.weights import EMBEDDED_POLICIES

EMBEDDED = (*EMBEDDED_POLICIES, *SCRATCH_POLICIES)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(config: PolicyConfig, *, as_stored: bool = False) -> tuple[Any, Any, dict[str, str]]:
    """The model, its processor and the instructions it was trained on, before freezing.

    On a CPU a weight that has the dtype of its file stays in the file, which is mapped into memory, so that all processes
    of a machine share it. Where torch makes tensors on another device, each weight goes there at once.

    Args:
        config: What to load.
        as_stored: For who takes a share of each weight and leaves the rest: where half precision is asked for, weights keep
            the dtype of their file, so that they stay in it, and none is looked at. He casts and checks his share.

    Returns:
        The model in evaluation mode, its processor, and a mapping task -> instruction from the
        folder's `instructions.json` (empty where it has none: then `lightning_sal.tasks` states them).

    Raises:
        FileNotFoundError: If a folder is named that is not there.
        ValueError: If the dtype or the kind of model is unknown, its files are damaged, do not belong together or hold NaN,
            or bitsandbytes is needed and not there.
    """
    if config.dtype not in DTYPES:
        raise ValueError(f"policy dtype '{config.dtype}' is unknown: use one of {', '.join(DTYPES)}")
    if config.model in SCRATCH_POLICIES:
        model, processor, instructions = SCRATCH_POLICIES[config.model]()
        return model.to(DTYPES[config.dtype]), processor, instructions
    from transformers import AutoConfig, AutoModelForImageTextToText

    model_type(config)  # refuses what is no such model
    source = EMBEDDED_POLICIES.get(config.model, Path(config.model))
    name, label = str(source) if source.is_dir() else config.model, f"policy model '{config.model}'"
    processor = load_processor(name, config)
    loader: Any = AutoModelForImageTextToText
    with built_from(label), without_bars():
        settings = AutoConfig.from_pretrained(name)
        bits = _four_bits(DTYPES[config.dtype], settings) if config.load_in_4bit else None
        # Not in float32: where a file has several dtypes, "auto" takes the first, which may be narrower than others.
        if kept := as_stored and bits is None and config.dtype != "float32":
            settings.dtype = None  # what it states may be another than that of the weights
        model, found = loader.from_pretrained(
            name,
            config=settings,
            dtype="auto" if kept else DTYPES[config.dtype],
            attn_implementation=config.attention,
            use_safetensors=True,
            quantization_config=bits,
            output_loading_info=True,
        )
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"{label}: its files lack {len(missing)} of the weights that its config.json asks for (first: {missing[0]})"
        )
    if not as_stored:
        refuse_non_finite(dict(model.named_parameters()), label)
    part: Any
    for part in model.modules():  # on a CPU it would pack its weights while sampling, in a way without gradients
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False
    return model.eval(), processor, read_instructions(source)


def model_type(config: PolicyConfig) -> str:
    """The family of a policy's model, as transformers calls it; no weight is read.

    Raises:
        FileNotFoundError: If a folder is named that is not there.
        ValueError: If it is no image-text-to-text model of transformers.
    """
    if config.model in SCRATCH_POLICIES:
        return "qwen2_5_vl"
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as FAMILIES

    source, label = EMBEDDED_POLICIES.get(config.model, Path(config.model)), f"policy model '{config.model}'"
    if source.is_dir():
        kind = read_object(source / "config.json").get("model_type")
    else:
        # What cannot be a hub name, or lies in a folder that is here, is a path that was mistyped.
        if not is_hub_name(config.model):
            raise FileNotFoundError(f"{label}: there is no folder {source}, and it is no hub name")
        require_hub(config.model)
        with built_from(label):
            kind = AutoConfig.from_pretrained(config.model).model_type
    if kind not in FAMILIES:
        raise ValueError(
            f"{label} is a {kind}, by its config.json, and no image-text-to-text model of transformers: take one, as a "
            "Qwen2.5-VL, Qwen3-VL or InternVL"
        )
    return str(kind)


def load_processor(name: str, config: PolicyConfig) -> Any:
    """The processor of a folder or hub name, with its settings that `config` states, and limits of pixels if it has some."""
    from transformers import AutoProcessor

    pixels = {k: v for k, v in (("min_pixels", config.min_pixels), ("max_pixels", config.max_pixels)) if v is not None}
    settings = {"padding_side": "left", **(config.processor or {})}
    with built_from(f"the processor of policy model '{name}'"):
        processor: Any = AutoProcessor.from_pretrained(name, **settings)
        if pixels and limits_pixels(processor):
            processor = AutoProcessor.from_pretrained(name, **settings, **pixels)
    if not processor.chat_template:
        raise ValueError(f"policy model '{name}' has no chat template: its folder needs a chat_template.jinja")
    with built_from(f"the chat template of policy model '{name}'"):
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], tokenize=False
        )
    if not processor.tokenizer("Hello", add_special_tokens=False)["input_ids"]:
        raise ValueError(f"policy model '{name}' has a tokenizer without tokens: its folder needs a tokenizer.json")
    return processor


def limits_pixels(processor: Any) -> bool:
    """Whether a processor resizes images to a number of pixels between limits, as that of the Qwen families does."""
    taken = getattr(processor.image_processor, "valid_kwargs", None)
    return "max_pixels" in getattr(taken, "__annotations__", ())


def read_instructions(folder: Path) -> dict[str, str]:
    """Task -> instruction that a model's folder states; empty where it states none, or there is no such folder."""
    stated = folder / "instructions.json"
    instructions = read_object(stated) if stated.is_file() else {}
    if odd := [task for task, text in instructions.items() if not isinstance(text, str)]:
        raise ValueError(f"{stated}: the instruction of {odd[0]} is no text")
    return instructions


def _four_bits(dtype: torch.dtype, settings: Any) -> Any:
    """NF4 for the linear layers of the language model of such sizes; the vision tower and the head keep `dtype`."""
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"policy.load_in_4bit needs bitsandbytes: {installing('quantization')}")
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(settings)
    sees = seeing(model)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[*(name for name, part in model.named_modules() if part in sees), "lm_head"],
    )


def freeze(model: Any, *, train_vision: bool) -> None:
    """Freeze all but the language part, so vision tower and projection, unless they are to be trained."""
    # LLaVA-OneVision has a parameter outside of all modules, the end of a row of tiles
    for parameter in set(model.parameters()) - language_parameters(model):
        parameter.requires_grad_(train_vision)
