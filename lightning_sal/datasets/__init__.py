"""Image groups from disk and from generators, in batches; nothing of Lightning.

A layout turns a folder into `Record`s, `ImageGroups` reads them, a `Stream` batches them for training and an
`EvaluationLoader` for one exact pass.
"""

from lightning_sal.datasets.holding_out import hold_out
from lightning_sal.datasets.images import UnreadableSample
from lightning_sal.datasets.jsonl import jsonl_records
from lightning_sal.datasets.layouts import Layout
from lightning_sal.datasets.records import ImageGroups, Photograph, Record
from lightning_sal.datasets.sources import Source, evaluation_split, layout_of, task_records
from lightning_sal.datasets.streams import EvaluationLoader, Stream

__all__ = [
    "EvaluationLoader",
    "ImageGroups",
    "Layout",
    "Photograph",
    "Record",
    "Source",
    "Stream",
    "UnreadableSample",
    "evaluation_split",
    "hold_out",
    "jsonl_records",
    "layout_of",
    "task_records",
]
