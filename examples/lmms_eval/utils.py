"""What lmms-eval calls for the saliency tasks of this folder: samples, questions, masks, and numbers over the whole set.

lmms-eval loads this file once for every function that a YAML names, so nothing here is shared but through arguments: each
measure of a sample carries the state of its metric, from which `over_all` computes the number of the whole set.
"""

from __future__ import annotations

import base64
import os
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from safetensors.torch import load, save
from torchmetrics.utilities import dim_zero_cat

from lightning_sal.datasets import Record, evaluation_split, task_records
from lightning_sal.datasets.cosod import chunks
from lightning_sal.inference.responses import find_masks, responses_of
from lightning_sal.samples import ImageGroup
from lightning_sal.segmenters.named import load_segmenter
from lightning_sal.segmenters.tiny import embedded_segmenter
from lightning_sal.tasks import get_task

if TYPE_CHECKING:
    from datasets import Dataset
    from torchmetrics import Metric

GROUP_SIZE = 8  # photographs of a CoSOD sample, at most
Sample = Mapping[str, Any]
_one_at_a_time = Lock()  # lmms-eval measures several samples at once, and there is one segmenter


def samples(sources: Iterable[Sample]) -> Dataset:
    """`process_docs`: every sample of the data that the lines of a task's JSONL name."""
    from datasets import Dataset

    return Dataset.from_list([sample for source in sources for sample in listed(source["task"], source["data"])])


def listed(task: str, data: str) -> list[dict[str, Any]]:
    """The samples of a folder or JSONL, as plain values.

    Args:
        task: sod, sis or cosod.
        data: Where they lie; $NAME is a variable of the environment.

    Raises:
        ValueError: The variable is not set, or the data hold nothing of the task.
    """
    where = os.path.expandvars(data)
    if "$" in where:
        raise ValueError(f"{data}: set this variable to the folder, or JSONL, of the {task} samples")
    return [
        {"task": task, "data": where, "number": number, "key": record.key}
        for number, record in enumerate(_records(task, where))
    ]


def images(sample: Sample) -> list[Image.Image]:
    """`doc_to_visual`: its photographs, upright, as the task shows them."""
    task = get_task(sample["task"])
    return [Image.fromarray(task.view(image).numpy()) for image in _group(sample).images]


def question(sample: Sample) -> str:
    """`doc_to_text`: what a policy of lightning-sal is asked, behind the images."""
    [message] = get_task(sample["task"]).messages(_group(sample))
    return message.text


def measured(sample: Sample, results: Sequence[str]) -> dict[str, Any]:
    """`process_results`: what one answer is worth.

    Args:
        sample: One of `listed`.
        results: The answer alone. Its masks are read leniently, its format strictly.

    Returns:
        `malformed`, 1 where the answer does not keep the format; and for each measure that papers report `score`, the
        sample's own value, beside what `over_all` needs.
    """
    task, group = get_task(sample["task"]), _group(sample)
    task.require(group)
    responses = responses_of([group], list(results), reading="lenient")
    with _one_at_a_time, torch.no_grad():
        [response] = find_masks(responses, _segmenter(os.environ.get("SALIENCY_SEGMENTER", "tiny")))
    metrics = task.metrics()
    task.update(metrics, group, response.answer, [mask.cpu() for mask in response.masks or ()])
    items: dict[str, Any] = {"malformed": float(response.answer.reason is not None)}
    for name, metric in metrics.items():
        state = _packed(metric)
        for measure, value in _values(name, metric).items():
            if task.measures()[measure].reported:
                about = {"task": task.name, "metric": name, "measure": measure, "state": state}
                items[measure] = {"score": float(value), **about}
    return items


def over_all(items: Sequence[Mapping[str, Any]]) -> float:
    """`aggregation`: a measure over the whole set, from what `measured` gave of it for each sample."""
    about = items[0]
    metric = get_task(about["task"]).metrics()[about["metric"]]
    for item in items:
        _add(metric, item["state"])
    return float(_values(about["metric"], metric)[about["measure"]])


@lru_cache
def _records(task: str, data: str) -> list[Record]:
    known = get_task(task)
    return chunks(task_records(known, data, evaluation_split(known, data, "test")), GROUP_SIZE)


def _group(sample: Sample) -> ImageGroup:
    return _records(sample["task"], sample["data"])[sample["number"]].read()


@lru_cache
def _segmenter(name: str) -> Any:
    """The embedded small one as `tiny`, or any that `load_segmenter` takes; on the GPU where there is one."""
    found = embedded_segmenter() if name == "tiny" else load_segmenter(name)
    return found.to("cuda") if isinstance(found, torch.nn.Module) and torch.cuda.is_available() else found


def _values(name: str, metric: Metric) -> dict[str, Any]:
    """Measure -> value, of a metric that is called so."""
    with warnings.catch_warnings():  # that it was never updated: its state came from elsewhere
        warnings.filterwarnings("ignore", "The ``compute`` method")
        value = metric.compute()
    return value if isinstance(value, dict) else {name: value}


def _packed(metric: Metric) -> str:
    """The state of a metric as a line of text, which lmms-eval can gather from processes and write into its logs."""
    states = {name: dim_zero_cat(state).contiguous() for name, state in metric.metric_state.items()}
    return base64.b64encode(zlib.compress(save(states))).decode()


def _add(metric: Metric, packed: str) -> None:
    """Adds a packed state to a metric."""
    states = load(zlib.decompress(base64.b64decode(packed)))
    kinds = metric.metric_state
    metric.merge_state({name: [state] if isinstance(kinds[name], list) else state for name, state in states.items()})
