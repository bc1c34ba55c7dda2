"""The card of an exported model, README.md: what it is, how it was trained, what it reached, how it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning_sal
from lightning_sal.evaluation.results import Results
from lightning_sal.evaluation.tables import markdown

PAPERS = {
    "unified saliency, confidence-guided policy optimisation": "arXiv 2511.00396",
    "saliency-map alignment": "arXiv 2604.04500",
    "perception by boxes and points, rewards by rank": "arXiv 2603.00152",
}
SHOWN = {  # What a run's config says of the training -> where
    "module": "model.class_path",
    "base model": "model.init_args.policy.model",
    "LoRA rank": "model.init_args.policy.lora.rank",
    "LoRA alpha": "model.init_args.policy.lora.alpha",
    "optimizer": "model.init_args.optimizer.class_path",
    "learning rate": "model.init_args.optimizer.init_args.lr",
    "steps at most": "trainer.max_steps",
    "prompts per step": "data.init_args.batch_size",
    "prompts per RL step": "data.init_args.rl_batch_size",
    "response tokens at most": "model.init_args.max_new_tokens",
    "data": "data.class_path",
    "precision": "trainer.precision",
    "seed": "seed_everything",
}


def model_card(
    name: str, base: str | None, config: Mapping[str, Any] | None = None, results: Sequence[Results] = ()
) -> str:
    """The card as the hub reads it: YAML between lines of dashes, then Markdown.

    Folders of the machine that trained are named by their last part alone.

    Args:
        name: What the model is called: owner/name on the hub, or its folder.
        base: Folder or hub name of the base model.
        config: The config.yaml of the run; None where it is not known.
        results: What it reached, from `lightning test`.
    """
    from huggingface_hub import ModelCardData

    base = _at(config or {}, SHOWN["base model"]) or base  # as the user named it, where that is known
    here = base is not None and (Path(base).exists() or base.count("/") != 1)
    data = ModelCardData(
        base_model=None if here else base,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["lightning-sal", "visual-saliency", *sorted({task for each in results for task in each.tasks.values()})],
    )
    rows = {heading: _at(config or {}, key) for heading, key in SHOWN.items()}
    training = "".join(f"| {heading} | {_plain(value)} |\n" for heading, value in rows.items() if value is not None)
    measured = markdown(results) if results else "Not evaluated yet.\n"
    papers = "".join(f"- {topic}: {paper}\n" for topic, paper in PAPERS.items())
    return f"""\
---
{data.to_yaml()}
---
# {name.rpartition("/")[2]}

A multimodal LLM that says what stands out in a picture, trained by lightning-sal {lightning_sal.__version__} from
{_plain(base) if base else "a base model that is not named"}. A referring segmenter turns its expressions into masks.

## Use

```bash
lightning-sal segment PHOTOGRAPHS --model {name}
```

It loads in transformers by `AutoModelForImageTextToText.from_pretrained("{name}")`, and in vLLM. The
instructions that it was trained on stand in `instructions.json`.

## Training

{"| | |" + chr(10) + "|---|---|" + chr(10) + training if training else "The config of the run was not at hand." + chr(10)}
## Results

{measured}
## Papers and licence

{papers}
The licence of the base model and of the data holds for this model too.
"""


def _at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _plain(value: Any) -> str:
    """A value in a cell of a table: no folder of this machine, nothing that ends the cell."""
    text = str(value)
    text = Path(text).name if text.startswith(("/", "~", ".")) else text
    return " ".join(text.replace("|", "\\|").split())
