"""Annotated responses as ShareGPT-style conversations, which LLaMA-Factory and ms-swift read, and back.

    {"conversations": [{"from": "human", "value": "<image>What in this image ..."}, {"from": "gpt", "value": "<think>..."}],
     "images": ["a.jpg"], "lightning_sal": "{\\"task\\": \\"sod\\", \\"masks\\": [\\"a.png\\"]}"}

The human asks what the task does, after one `<image>` for each image; the system turn of a task that has one stands in
front. What such readers do not know, the task and the masks, lies in a column of our own: both drop columns that they were
not told of, and as one text its type is the same in every line, which the `datasets` library asks of a column. Paths are
relative to the file.

A line without a response that states boxes and points, of a task that is answered by these, is answered so and without
reasoning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import torch

from lightning_sal.datasets.jsonl import Converted, check_fields, moved, read_lines
from lightning_sal.datasets.placed_answers import answer_from, in_pixels
from lightning_sal.datasets.spelling import file_of
from lightning_sal.files.reading import parse_json, parse_object, read_items
from lightning_sal.samples import ImageGroup, Message
from lightning_sal.tasks import TASKS, BoxTask, get_task

COLUMN = "lightning_sal"
IMAGE = "<image>"
PLACEHOLDERS = (IMAGE, "<video>", "<audio>")  # replaced by pixels and sound wherever they stand, in answers too
TURN = ("from", "value", "role", "content")
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
ROLES = {"human": "question", "user": "question", "gpt": "answer", "assistant": "answer", "system": "system"}


def to_conversations(path: Path, folder: Path) -> Iterator[Converted]:
    """The lines of an SFT JSONL as conversations.

    Args:
        path: The JSONL.
        folder: That the result's paths are relative to.
    """
    for line in read_lines(path):
        try:
            if line.fault:
                raise ValueError(line.fault)
            yield Converted(line.source, to_conversation(moved(line.fields, path.parent, folder)))
        except ValueError as error:
            yield Converted(line.source, fault=str(error))


def from_conversations(
    path: Path, folder: Path, task: str | None = None, unit: str | None = None
) -> Iterator[Converted]:
    """Conversations, a JSON array or one a line, as lines of an SFT JSONL.

    Args:
        path: The conversations.
        folder: That the result's paths are relative to.
        task: Of those that do not say; None tells it from the answer's tags and the number of images.
        unit: Of their boxes and points, see `in_pixels`.
    """
    for source, text in read_items(path):
        try:
            item = parse_json(text) if isinstance(text, str) else text
            fields, left = from_conversation(item, task)
            if isinstance(TASKS[fields["task"]], BoxTask) and item.get(COLUMN) is None:
                image = file_of(path.parent, fields["images"][0])
                fields["response"] = in_pixels(fields["response"], TASKS[fields["task"]], image, unit)
            yield Converted(source, moved(fields, path.parent, folder), left=left)
        except ValueError as error:
            yield Converted(source, fault=str(error))


def to_conversation(fields: dict[str, Any]) -> dict[str, Any]:
    """One line as a conversation.

    Raises:
        ValueError: A turn holds a placeholder, which readers would count among the images.
    """
    response, images = fields.get("response"), fields["images"]
    reasoning = response is not None
    response = answer_from(fields) if response is None else response
    if response is None:
        raise ValueError("no response: a conversation needs an answer")
    messages = (*asked(fields, reasoning), Message("assistant", response))
    for message in messages:
        _check_text("response" if message.role == "assistant" else "question", message.text)
    ours = {key: value for key, value in fields.items() if key not in ("images", "response")}
    return {
        "conversations": [
            {"from": SPEAKERS[message.role], "value": IMAGE * message.images + message.text} for message in messages
        ],
        "images": images,
        COLUMN: json.dumps(ours, ensure_ascii=False),
    }


def asked(fields: Mapping[str, Any], reasoning: bool = True) -> tuple[Message, ...]:
    """What the task of a line asks about it, which takes no pixel; with or without reasoning."""
    name, images = fields["task"], (torch.empty(0),) * len(fields["images"])
    task = get_task(name) if reasoning else get_task(name).without_reasoning()
    return task.messages(ImageGroup("", name, images, question=fields.get("question", "")))


def from_conversation(item: Any, task: str | None = None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """One conversation as the fields of a line.

    Args:
        item: `conversations` of `from` and `value`, or `messages` of `role` and `content`; with `images`, or `image`.
        task: Of an item without our own column.

    Returns:
        The fields; and what of the item has no place in them, in words.

    Raises:
        ValueError: It cannot be a sample, and why.
    """
    if not isinstance(item, dict):
        raise ValueError("not an object")
    spoken = "conversations" if "conversations" in item else "messages"
    shown = "images" if "images" in item else "image"
    question, response, system = _turns(item.get(spoken))
    images = [item[shown]] if isinstance(item.get(shown), str) else item.get(shown)
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise ValueError("`images` is not a list of paths")
    images = [unquote(image.removeprefix("file://")) if image.startswith("file://") else image for image in images]
    if remote := [image for image in images if "://" in image or image.startswith("data:")]:
        raise ValueError(f"{remote[0][:60]} is no file: download it first")
    if (count := question.count(IMAGE)) != len(images):
        raise ValueError(f"{count} x {IMAGE} in the question and {len(images)} images")
    _check_text("response", response)
    ours = _own_column(item)
    told = {"task": task or _infer_task(response, len(images))} if ours is None else ours
    fields = {"task": "", "images": images} | told | {"images": images, "response": response}
    check_fields(fields)
    text = question.replace(IMAGE, "").strip()
    at_once = response == answer_from(fields) and text == asked(fields, reasoning=False)[-1].text.strip()
    if at_once and ours is not None:  # the line that it was made of had no response
        del fields["response"]
    if ours is None and (reason := TASKS[fields["task"]].parse(response).reason):
        raise ValueError(f"no answer to the task {fields['task']}: {reason}")
    left = [f"`{key}`" for key in item if key not in (spoken, shown, COLUMN) and item[key] is not None]
    left += [
        f"`{key}` of a turn" for key in dict.fromkeys(key for turn in item[spoken] for key in turn) if key not in TURN
    ]
    if ours is None:
        fields |= _own_question(fields, text)
    words = {message.role: message.text.strip() for message in asked(fields, not at_once)}
    left += ["a system prompt"] if system and system.strip() != words.get("system") else []
    left += ["a question in other words"] if text != words["user"] else []
    return fields, tuple(left)


def dataset_info(path: Path) -> dict[str, Any]:
    """The entry of such a file in the `dataset_info.json` of LLaMA-Factory."""
    columns = {"messages": "conversations", "images": "images"}
    return {path.stem: {"file_name": path.name, "formatting": "sharegpt", "columns": columns}}


def _turns(turns: Any) -> tuple[str, str, str]:
    """Question, answer, and the system prompt or an empty text."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("neither `conversations` nor `messages` is a list of turns")
    pairs = [(_role(turn.get("from", turn.get("role"))), turn.get("value", turn.get("content"))) for turn in turns]
    if not all(isinstance(text, str) for _, text in pairs):
        raise ValueError("a turn without a text")
    system = [text for role, text in pairs[:1] if role == "system"]
    if [role for role, _ in pairs[len(system) :]] != ["question", "answer"]:
        raise ValueError(f"{len(pairs)} turns, where one question and one answer must stand")
    return pairs[-2][1], pairs[-1][1], "".join(system)


def _role(name: Any) -> str | None:
    return ROLES.get(name) if isinstance(name, str) else None


def _own_question(fields: Mapping[str, Any], text: str) -> dict[str, str]:
    """The question of a sample, where what its task asks with it is this very text."""
    question = text.removesuffix(asked(fields)[-1].text.strip()).strip()
    found = {"question": question} if question else {}
    return found if text in [message.text.strip() for message in asked({**fields, **found})] else {}


def _check_text(name: str, text: str) -> None:
    if found := [mark for mark in PLACEHOLDERS if mark in text]:
        raise ValueError(f"the {name} holds {found[0]}, which readers of conversations take for an image or the like")


def _own_column(item: dict[str, Any]) -> dict[str, Any] | None:
    if item.get(COLUMN) is None:
        return None
    if not isinstance(item[COLUMN], str):
        raise ValueError(f"`{COLUMN}` is not the text of a JSON object")
    try:
        return parse_object(item[COLUMN])
    except ValueError as error:
        raise ValueError(f"`{COLUMN}` is not the text of a JSON object: {error}") from error


def _infer_task(response: str, images: int) -> str:
    """The one task that has such an answer to so many images, by its tags; one without tags takes any response: none."""
    likely = {name: task for name, task in TASKS.items() if task.tags and (images > 1) == task.several}
    reasons = {name: task.parse(response).reason for name, task in likely.items()}
    fitting = [name for name, reason in reasons.items() if reason is None]
    if len(fitting) != 1:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ValueError(f"no task has such an answer to {images} images ({told})")
    return fitting[0]
