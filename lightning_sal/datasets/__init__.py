"""Image groups from disk and from generators, in batches; nothing of Lightning.

A layout turns a folder into `Record`s, `ImageGroups` reads them, a `Stream` batches them for training and an
`EvaluationLoader` for one exact pass.
"""

from lightning_sal.datasets import cosod, sis, sod
from lightning_sal.datasets.images import UnreadableSample
from lightning_sal.datasets.jsonl import jsonl_records
from lightning_sal.datasets.layouts import Layout
from lightning_sal.datasets.records import ImageGroups, Photograph, Record
from lightning_sal.datasets.streams import EvaluationLoader, Stream

LAYOUTS: dict[str, Layout] = {layout.task: layout for layout in (sod.LAYOUT, sis.LAYOUT, cosod.LAYOUT)}

__all__ = [
    "LAYOUTS",
    "EvaluationLoader",
    "ImageGroups",
    "Layout",
    "Photograph",
    "Record",
    "Stream",
    "UnreadableSample",
    "jsonl_records",
]
