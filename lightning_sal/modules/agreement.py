"""Whether a run and what it is given belong together, said in one line before a step is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_sal.files.loading import refuse_non_finite
from lightning_sal.policy.config import LINEAR_LAYERS, PolicyConfig
from lightning_sal.policy.loading import EMBEDDED


def refuse_other_policy(stored: Any, policy: PolicyConfig) -> None:
    """Check that a checkpoint's weights were trained in the policy that they are to be put into.

    Weights of the same names and shapes fit many policies. What changes no weight (pixels, dtype, memory) may differ.

    Args:
        stored: The settings of the checkpoint's policy, as plain values.
        policy: Those of the run.

    Raises:
        ValueError: If the model or what is trained of it is another; the line names both values.
    """
    if not isinstance(stored, Mapping):
        raise ValueError("the checkpoint does not say what its policy is, or says it in another way than this version")
    lora = stored.get("lora")
    if (lora is None) != (policy.lora is None):
        there, here = ("no adapters", policy.lora) if lora is None else (lora, "null")
        raise ValueError(f"the checkpoint was trained with {there}, and model.policy.lora is {here}: give the same")
    pairs: dict[str, tuple[Any, Any]] = {"train_vision": (stored.get("train_vision"), policy.train_vision)}
    if policy.lora is not None:
        lora = lora if isinstance(lora, Mapping) else {}
        pairs |= {f"lora.{name}": (lora.get(name), getattr(policy.lora, name)) for name in ("rank", "alpha")}
        pairs["lora.targets"] = (sorted(lora.get("targets") or LINEAR_LAYERS), sorted(policy.lora.names))
    for name, (there, here) in pairs.items():
        if there != here:
            raise ValueError(
                f"the checkpoint was trained with policy.{name} {there}, and model.policy.{name} is {here}: give the same"
            )
    there = str(stored.get("model"))
    if not _same_model(there, policy.model):
        raise ValueError(
            f"the checkpoint was trained on the model {there}, and model.policy.model is {policy.model}: name the same one"
        )


def _same_model(there: str, here: str) -> bool:
    """Whether two names can be those of one model: a folder may have moved since, one that is still there has not."""
    if there == here or Path(there).resolve() == Path(here).resolve():
        return True
    return Path(here).is_dir() and there not in EMBEDDED and not Path(there).is_dir()


def run_of(trainer: Any) -> dict[str, str]:
    """What a fit that goes on has as it began, by the words for it."""
    tasks = sorted(getattr(trainer.datamodule, "training_tasks", ()))
    return {"module": type(trainer.lightning_module).__name__} | ({"tasks": ", ".join(tasks)} if tasks else {})


def refuse_other_run(stored: Any, run: Mapping[str, Any]) -> None:
    """Check that a fit goes on as it began.

    Args:
        stored: What the checkpoint says of its run; None of those that say nothing.
        run: The same of this one, by the words for it.

    Raises:
        ValueError: If a value is another; the line names both.
    """
    for name, here in run.items() if isinstance(stored, Mapping) else ():
        there = stored.get(name, here)
        if there != here:
            raise ValueError(
                f"the checkpoint is of a run with {name} {there}, and this one has {name} {here}: give the same, or start a "
                "new run from what `lightning-sal export` makes of the checkpoint"
            )


def refuse_other_weights(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Check weights name by name and shape by shape, and that they are numbers.

    Args:
        given: Those of the checkpoint.
        wanted: Those that are trained.
        what: Whose they are, for the error.

    Raises:
        ValueError: If any is missing, left over, of another shape, or not finite.
    """
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(map(str, given.keys() - wanted.keys()))
    if missing or extra:
        raise ValueError(
            f"the checkpoint does not fit this {what}: {len(missing)} trainable weights are missing from it (first: "
            f"{missing[:1]}), {len(extra)} are not in the {what} (first: {extra[:1]}); use the settings it was trained with"
        )
    loaded = {name: weight for name, weight in given.items() if weight is not wanted[name]}
    for name, weight in loaded.items():
        if not isinstance(weight, Tensor) or weight.shape != wanted[name].shape:
            there = tuple(weight.shape) if isinstance(weight, Tensor) else f"a {type(weight).__name__}"
            raise ValueError(
                f"the checkpoint does not fit this {what}: {name} is {there} in it, and {tuple(wanted[name].shape)} here; "
                "use the settings it was trained with"
            )
    refuse_non_finite(loaded, "the checkpoint")


def refuse_other_buffers(given: Mapping[str, Any], own: Mapping[str, Tensor]) -> None:
    """Check that what a checkpoint remembers from step to step has a place here.

    Args:
        given: The buffers of the checkpoint.
        own: Those of the module.

    Raises:
        ValueError: If one that both have is of another shape.
    """
    for name in sorted(own.keys() & given.keys()):
        there, here = tuple(given[name].shape), tuple(own[name].shape)
        if there != here:
            raise ValueError(
                f"the checkpoint does not fit: {name}, which a step remembers, is {there} in it, and {here} here; use the "
                "settings it was trained with"
            )


def refuse_weights_alone(states: Any) -> None:
    """Check that a fit can go on from a checkpoint.

    Args:
        states: Of the optimizers, in the checkpoint.

    Raises:
        ValueError: If there are none.
    """
    whole = isinstance(states, list) and all(isinstance(state, dict) and "param_groups" in state for state in states)
    if not whole or not states:
        raise ValueError(
            "the checkpoint holds weights and no state of an optimizer, which a fit goes on with: take one that was written "
            "without save_weights_only, or start a new run from what `lightning-sal export` makes of it"
        )


def refuse_other_optimizer(optimizers: Sequence[Any]) -> None:
    """Check that the state which optimizers were given is of their kind.

    Raises:
        ValueError: If settings that one reads are not there.
    """
    for optimizer in optimizers:
        asked = getattr(optimizer, "defaults", {}).keys()  # DeepSpeed's own has none
        if lacking := sorted({name for group in optimizer.param_groups for name in asked - group.keys()}):
            raise ValueError(
                f"the checkpoint was trained by another optimizer than {type(optimizer).__name__}, of whose settings it has "
                f"no {lacking[0]}: give the same model.optimizer"
            )


def refuse_streams(loaders: Any) -> None:
    """Check that training has one stream of batches.

    Raises:
        ValueError: If there are several.
    """
    if isinstance(loaders, dict):
        names = " and ".join(map(str, loaders))
        raise ValueError(
            f"the datamodule gives {len(loaders)} streams, {names}, which only lightning_sal.callbacks.InterleavedSFT takes "
            f"in turns: add it to trainer.callbacks, or let the datamodule give one of them (of scenes, data.streams)"
        )
