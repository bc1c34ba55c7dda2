"""A trained policy as a plain folder of transformers: what was trained goes into the base model, in float32."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sal import tasks
from lightning_sal.files.loading import built_from, read_safetensors, read_tensors
from lightning_sal.files.reading import read_object
from lightning_sal.files.writing import naming
from lightning_sal.internals.notices import without_bars
from lightning_sal.policy.adapters import add_lora
from lightning_sal.policy.config import LoRA, PolicyConfig, parse_policy
from lightning_sal.policy.loading import freeze, load_model
from lightning_sal.policy.parts import language_parameters

POLICY = "policy.net."  # What the names of a policy's weights begin with in checkpoints of `lightning_sal.modules`
ADAPTED = "base_model.model."  # What peft puts before the names of the model itself


def export(
    source: Path, folder: Path, model: str | None = None, lora: LoRA | None = None, dtype: str = "bfloat16"
) -> str:
    """Merge what was trained into its base model and write a folder that stands alone.

    The base model is loaded in float32, an update (alpha / rank) B A of adapters is computed and added in float32, and
    each weight is rounded once, to `dtype`, at the end. That takes 4 bytes a weight of main memory.

    Args:
        source: Folder of adapters in peft's format, or checkpoint file of a module of `lightning_sal.modules`.
        folder: Where to write; new or empty. It gets weights, configuration, processor, tokenizer, generation settings and
            `instructions.json`.
        model: The base model, as in `PolicyConfig`; None takes the one that adapters in peft's format and checkpoints name.
        lora: How the adapters of a checkpoint were made; None takes what it says itself.
        dtype: Of the weights that are written: bfloat16, float16 or float32.

    Returns:
        The name of the base model.

    Raises:
        FileNotFoundError: If there is no such source.
        FileExistsError: If there is anything in the folder.
        ValueError: If the source cannot be read, or is not exactly what the base model takes.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already and is not overwritten: name another folder")
    if source.is_dir():
        config, weights = read_adapter(source)
        model = model or config.base_model_name_or_path
    else:
        config, (policy, weights) = None, read_checkpoint(source)
        if policy is not None:
            model, lora = model or policy.model, lora or policy.lora
        if lora is None and any("lora_" in name for name in weights):
            raise ValueError(
                f"{source} holds LoRA weights and not their scale: give --config, the config.yaml of the run, or the "
                "folder of adapters that SaveAdapter writes beside a checkpoint"
            )
    if model is None:
        raise ValueError(f"{source} does not say what its base model is: give --model, its folder or hub name")
    base, processor, instructions = load_model(PolicyConfig(model, dtype="float32"))
    check_layer_names(str(source), weights, base)
    if config is not None:
        merged = with_adapter(str(source), base, config, weights)
    else:
        merged = with_trained(str(source), base, lora, weights)
    write(folder, merged.to(getattr(torch, dtype)), processor, instructions)
    return model


def read_adapter(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """The `peft.PeftConfig` and the weights in a folder that peft has written.

    Raises:
        ValueError: If there is no such thing in it, or what cannot become part of a model's weights.
    """
    from peft import PeftConfig

    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder} holds no {name}: name a folder that SaveAdapter or peft has written, or a checkpoint that is a "
                "file (those of DeepSpeed are folders, which are not read)"
            )
    stated = folder / "adapter_config.json"
    base = read_object(stated).get("base_model_name_or_path")
    if not isinstance(base, (str, type(None))):
        raise ValueError(f"{stated}: base_model_name_or_path is {base!r}: it must be a folder or hub name")
    config: Any
    with built_from(str(stated)):
        config = PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        raise ValueError(f"{folder}: {config.peft_type.value} adds to the prompt and cannot be merged into weights")
    return config, read_safetensors(folder / "adapter_model.safetensors")


def read_checkpoint(path: Path) -> tuple[PolicyConfig | None, dict[str, Tensor]]:
    """What a Lightning checkpoint says of its policy (None in early ones), and its trained weights.

    The weights are under the names that they have in the policy's model.

    Raises:
        ValueError: If it is no checkpoint, holds more than tensors and plain values, or holds no policy.
    """
    content = read_tensors(path, mmap=True)
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not weights:
        raise ValueError(f"{path} is not a Lightning checkpoint: it holds no state_dict")
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise ValueError(
            f"{path} is not a Lightning checkpoint: its state_dict holds other things than tensors by name"
        )
    if other := [name for name in weights if not name.startswith(POLICY)]:
        raise ValueError(
            f"{path} holds {other[0]}, which is no part of a policy: export takes checkpoints of SFT and the RL modules, "
            "and folders of adapters of any model"
        )
    stored = content.get("policy")
    policy = None if stored is None else parse_policy(stored, f"{path}, the settings of its policy")
    return policy, {name.removeprefix(POLICY): weight for name, weight in weights.items()}


def with_adapter(source: str, base: nn.Module, config: Any, weights: dict[str, Tensor]) -> nn.Module:
    """The base model with adapters in peft's format merged into it."""
    from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

    adapted: Any
    with built_from(source):
        adapted = PeftModel(base, config)
    check_weights(source, weights, get_peft_model_state_dict(adapted, save_embedding_layers=False))
    set_peft_model_state_dict(adapted, weights)
    return adapted.merge_and_unload()


def with_trained(source: str, base: Any, lora: LoRA | None, weights: dict[str, Tensor]) -> nn.Module:
    """The base model with the weights of a checkpoint in it, or merged into it."""
    language = language_parameters(base)
    freeze(base, train_vision=any(name in weights for name, p in base.named_parameters() if p not in language))
    model = base if lora is None else add_lora(base, lora)
    check_weights(source, weights, {name: p for name, p in model.named_parameters() if p.requires_grad})
    model.load_state_dict(weights, strict=False)
    return base if lora is None else model.merge_and_unload()


def check_layer_names(source: str, names: Iterable[str], model: nn.Module) -> None:
    """Tell another naming of layers from weights that are wrong.

    Raises:
        ValueError: If weights belong to a stack of layers that the model does not have.
    """
    known = stacks(name for name, _ in model.named_parameters())
    if unknown := stacks(names) - known:
        import transformers

        raise ValueError(
            f"{source} has layers named {min(unknown)}, and its base model has {', '.join(sorted(known))}: versions of "
            f"transformers name them differently, so export with the one it was trained with (here "
            f"{transformers.__version__}), or name its own base model"
        )


def stacks(names: Iterable[str]) -> set[str]:
    """Paths of the numbered layers that weights belong to, as `model.language_model.layers`."""
    found = (re.match(r"(.+?)\.\d+\.", name.removeprefix(ADAPTED)) for name in names)
    return {match[1] for match in found if match}


def check_weights(source: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Check that the weights are those that are wanted, name by name and shape by shape.

    Raises:
        ValueError: If any is missing, left over, or of another shape.
    """
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or extra:
        raise ValueError(
            f"{source} does not fit its base model: {len(missing)} weights are missing from it (first: {missing[:1]}), "
            f"{len(extra)} have no place in the model (first: {extra[:1]}); name the base model and the config that it "
            "was trained with"
        )
    for name, weight in given.items():
        if weight.shape != wanted[name].shape:
            raise ValueError(
                f"{source}: {name} is {tuple(weight.shape)}, and in the model {tuple(wanted[name].shape)}: name the base "
                "model and the config that it was trained with"
            )


def write(folder: Path, model: Any, processor: Any, instructions: Mapping[str, str]) -> None:
    """Write a model's folder, which is whole once it stands under its name.

    Args:
        folder: New, or empty.
        model: In the dtype to write.
        processor: As it is.
        instructions: Task -> instruction where the base model states them; the others are those of this package.

    Raises:
        ValueError: If a weight is not finite.
    """
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(
                f"{name} is not finite in {model.dtype}: float16 ends at 65504, and NaN is of the training"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with naming(folder.parent, folder.name), TemporaryDirectory(prefix=".export-", dir=folder.parent) as held:
        whole = Path(held) / folder.name
        for name in model.config.sub_configs:  # transformers sets that of the whole alone
            if (part := getattr(model.config, name, None)) is not None:
                part.dtype = model.dtype
        with without_bars():
            model.save_pretrained(whole)
        processor.save_pretrained(whole)
        (whole / "instructions.json").write_text(json.dumps(tasks.instructions() | dict(instructions), indent=1) + "\n")
        whole.rename(folder)
