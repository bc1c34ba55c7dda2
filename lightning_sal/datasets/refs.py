"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO as JSON: references beside the COCO json of their objects.

    refs(unc).json    [{"ref_id": 0, "image_id": 581857, "ann_id": 1719310, "split": "testA",
                        "sentences": [{"sent": "woman on the left"}, ...]}, ...]
    instances.json    COCO json with `images` and `annotations`

The references may also stand one a line. Each sentence is a sample; its mask is the union of the objects, and its boxes are
theirs. In gRefCOCO (arXiv 2306.00968) `ann_id` is a list, and where nothing is meant `no_target` is true and `ann_id` is
[-1]: a mask of no pixel, and no box. `split` is train, val, test, testA or testB: each is a dataset, called
`refs(unc).json/testA`.

The official release of RefCOCO has the references as a pickle. Opening one runs whatever code it holds: it is not read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from lightning_sal.datasets.boxes import Boxes
from lightning_sal.datasets.files import nearby_folders, subfolders, visible
from lightning_sal.datasets.layouts import Candidate
from lightning_sal.datasets.records import Photograph, Record
from lightning_sal.datasets.segmentations import Segmentations, read_frame
from lightning_sal.datasets.spelling import find_files
from lightning_sal.datasets.unions import Union
from lightning_sal.files.reading import parse_json, read_items, read_object

log = logging.getLogger(__name__)

PEEKED = 2**16  # bytes of a file by which its form is told
SPLIT = re.compile(rb'"split"\s*:\s*"(\w{1,32})"')
PICKLE = re.compile(r"refs.*\.(?:p|pkl|pickle)", re.IGNORECASE)
NO_TARGET = [-1]
BESIDE = re.compile(r"(?:image|img)s?|(?:ms)?coco(?:[-_]?20\d\d)?|(?:train|val|test)20\d\d")
MOST_FOLDERS = 100
DEEP = 4  # folders beside the references under which the photographs may lie

Id = int | str
Entry = dict[str, Any]


@dataclass
class References:
    """The references of a file, read when the first of its splits is.

    Args:
        path: The file.
    """

    path: Path
    _annotations: dict[Id, Entry] = field(default_factory=dict, init=False)
    _images: dict[Id, Entry] = field(default_factory=dict, init=False)
    _files: dict[Id, Path] = field(default_factory=dict, init=False)

    def records(self, split: str) -> list[Record]:
        """The samples of a split; those of no split that can be told are with the first.

        Raises:
            ValueError: There is not one COCO json beside the references, or it is malformed.
        """
        others = self.splits[1:] if split == self.splits[0] else ()
        return [record for of, record in self._all if of == split or (split == self.splits[0] and of not in others)]

    @cached_property
    def splits(self) -> list[str]:
        """The names of the splits, sorted; "" where there is none."""
        found = sorted({split.decode() for split in SPLIT.findall(self.path.read_bytes())})
        return found or [""]

    @cached_property
    def _all(self) -> list[tuple[str, Record]]:
        """(split, sample) of every sentence."""
        place = instances_of(self.path)
        content = read_object(place)
        self._images, self._annotations = (_by_id(place, content, name) for name in ("images", "annotations"))
        names = {key: image["file_name"] for key, image in self._images.items()}
        found = find_files(photograph_folders(self.path.parent), list(names.values())) if names else []
        self._files = dict(zip(names, found, strict=True))
        listed, seen = [], {}
        for number, (source, item) in enumerate(read_items(self.path), 1):
            split = ""
            try:
                ref = parse_json(item) if isinstance(item, str) else item
                if not isinstance(ref, dict):
                    raise ValueError("not an object")
                split = ref.get("split", "") if isinstance(ref.get("split", ""), str) else ""
                listed += [(split, record) for record in self._sentences(ref, source, seen)]
            except ValueError as error:
                photograph = Photograph(self.path, fault=str(error))
                listed.append((split, Record(f"ref-{number}", "perception", (photograph,), source=source)))
        return listed

    def _sentences(self, ref: Entry, source: str, seen: dict[Any, str]) -> Iterator[Record]:
        """The samples of a reference.

        Raises:
            ValueError: It is malformed.
        """
        key, image_id = ref.get("ref_id"), ref.get("image_id")
        if not _is_id(key):
            raise ValueError(f"its `ref_id` is {shortened(key)}, which is no id")
        if not isinstance(ref.get("split", ""), str):
            raise ValueError(f"its `split` is {shortened(ref['split'])}, which is no word")
        if (first := seen.setdefault(key, source)) != source:
            raise ValueError(f"has the `ref_id` {shortened(key)} of {first}")
        if not _is_id(image_id) or image_id not in self._images:
            raise ValueError(f"its `image_id` is {shortened(image_id)}, which the COCO json does not list")
        texts = sentences_of(ref.get("sentences"))
        objects = self._objects(ref, image_id)
        image = self._images[image_id]
        frame = read_frame(image.get("height"), image.get("width"))
        drawings = [(f"annotation {shortened(each['id'])}", each.get("segmentation")) for each in objects]
        annotation = Union(Segmentations(drawings, frame, f"image {shortened(image_id)}", image_id))
        boxes = Boxes(tuple(corners(each.get("bbox")) for each in objects), frame=frame)
        photograph = Photograph(self._files[image_id], annotation)
        for number, text in enumerate(texts, 1):
            yield Record(f"{key}.{number}", "perception", (photograph,), source=source, question=text, boxes=(boxes,))

    def _objects(self, ref: Entry, image_id: Id) -> list[Entry]:
        """The annotations that a reference means."""
        listed, none = ref.get("ann_id"), ref.get("no_target", False)
        listed = listed if isinstance(listed, list) else [listed]
        if not isinstance(none, bool):
            raise ValueError(f"its `no_target` is {shortened(none)}, where true or false must stand")
        if none != (listed in (NO_TARGET, [])):
            raise ValueError(f"`no_target` is {str(none).lower()} and `ann_id` is {shortened(ref.get('ann_id'))}")
        found = []
        for key in [] if none else listed:
            if not _is_id(key) or key not in self._annotations:
                raise ValueError(f"its `ann_id` is {shortened(key)}, which the COCO json does not list")
            if (other := self._annotations[key].get("image_id")) != image_id:
                raise ValueError(
                    f"annotation {shortened(key)} is of image {shortened(other)}, not {shortened(image_id)}"
                )
            found.append(self._annotations[key])
        if len({each["id"] for each in found}) < len(found):
            raise ValueError("names an annotation twice")
        return found


def match(place: Path) -> list[Candidate]:
    """The splits of the references right in a folder, or of this file; a pickle of references says why it is none."""
    files = [place] if place.is_file() else sorted(place.iterdir())
    lists = [file for file in files if _is_refs(file)]
    found = []
    for file in lists:
        where, references = "." if file == place else file.name, References(file)
        for split in references.splits:
            found.append(Candidate(f"{where}/{split}".rstrip("/"), partial(references.records, split)))
    pickles = [] if lists else [file for file in files if PICKLE.fullmatch(file.name) and file.is_file()]
    return found + [Candidate("." if file == place else file.name, partial(_refuse, file)) for file in pickles]


def sentences_of(value: Any) -> list[str]:
    """The sentences of a reference: texts, or objects with `sent`.

    Raises:
        ValueError: They are none.
    """
    listed = value if isinstance(value, list) else []
    named = [each.get("sent") if isinstance(each, dict) else each for each in listed]
    texts = [text.strip() for text in named if isinstance(text, str) and text.strip()]
    if not texts or len(texts) < len(named):
        raise ValueError(f"no sentences: {shortened(value)}")
    return texts


def corners(bbox: Any) -> Any:
    """COCO's x, y, width, height as x0, y0, x1, y1; anything else as it stands, for `Boxes` to name."""
    numbers = isinstance(bbox, list) and len(bbox) == 4
    if not numbers or not all(isinstance(each, int | float) and not isinstance(each, bool) for each in bbox):
        return bbox
    return [bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]]


def instances_of(path: Path) -> Path:
    """The COCO json that references name their objects by: `instances.json` beside them, or the only `instances*.json`.

    Raises:
        FileNotFoundError: There is none, or not one alone.
    """
    listed = sorted(file for file in path.parent.glob("instances*.json") if visible(file.name))
    named = [file for file in listed if file.name == "instances.json"] or listed
    if len(named) != 1:
        found = ", ".join(file.name for file in named) or "none"
        raise FileNotFoundError(f"{path}: one COCO json, instances.json, must stand beside it, and there is {found}")
    return named[0]


def _is_refs(file: Path) -> bool:
    if not visible(file.name) or file.suffix.lower() not in (".json", ".jsonl") or not file.is_file():
        return False
    with file.open("rb") as stream:
        head = stream.read(PEEKED).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head[:1] in (b"[", b"{") and all(key in head for key in (b'"ref_id"', b'"sentences"', b'"ann_id"'))


def _refuse(file: Path) -> list[Record]:
    opened = f"open({file.name!r}, 'rb')), open({file.stem + '.json'!r}, 'w')"
    command = f'python -c "import json, pickle; json.dump(pickle.load({opened})"'
    raise ValueError(
        f"{file}: a pickle, which runs whatever code it holds and is not read; where you trust it: {command}"
    )


def _by_id(path: Path, content: Entry, name: str) -> dict[Id, Entry]:
    listed = content.get(name)
    if not isinstance(listed, list) or not all(isinstance(each, dict) and _is_id(each.get("id")) for each in listed):
        raise ValueError(f"{path}: not COCO json: `{name}` is no list of objects with an `id`")
    if name == "images" and not all(isinstance(each.get("file_name"), str) for each in listed):
        raise ValueError(f"{path}: not COCO json: an image has no `file_name`")
    found = {each["id"]: each for each in listed}
    if len(found) < len(listed):
        raise ValueError(f"{path}: {len(listed) - len(found)} of its {name} have the `id` of another")
    return found


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def photograph_folders(folder: Path) -> list[Path]:
    """Where the photographs may lie: beside the references or up to two folders below; or under the folders `images`,
    `coco`, `train2014` and the like that lie beside the folder of the references, or the one above it."""
    around = [sub for place in list(folder.absolute().parents)[:2] for sub in subfolders(place)]
    beside = [sub for sub in around if BESIDE.fullmatch(sub.name.lower())]
    deep = [deeper for sub in beside for deeper in _below(sub, DEEP) if sub != folder.absolute()]
    return [*nearby_folders(folder), *deep[:MOST_FOLDERS]]


def _below(folder: Path, depth: int) -> list[Path]:
    return [folder, *(deeper for sub in (subfolders(folder) if depth else []) for deeper in _below(sub, depth - 1))]


LOOKED_FOR = (
    "references (a JSON with `ref_id`, `ann_id` and `sentences`, such as refs(unc).json or grefs(unc).json) beside the COCO "
    "json of their objects, instances.json"
)
