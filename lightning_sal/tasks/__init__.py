"""What is asked, how an answer is read and written, what it asks of a segmenter, and what it is measured by."""

from lightning_sal.tasks.accuracy import AccuracyTask
from lightning_sal.tasks.base import WITHOUT_REASONING, Answer, Task
from lightning_sal.tasks.boxes import BoxTask, Objects
from lightning_sal.tasks.masks import InstanceTask, RegionTask
from lightning_sal.tasks.measures import Measure
from lightning_sal.tasks.objects import ObjectBoxTask, ObjectCountTask, ObjectMaskTask, ObjectTask
from lightning_sal.tasks.registry import TASKS, answer_tags, get_task, instructions, load_task, register, task_of
from lightning_sal.tasks.saliency import COSOD, SIS, SOD, TagInstances, TagRegions
from lightning_sal.tasks.tags import SEMANTIC, Expressions, TagTask
from lightning_sal.tasks.vqa import VQA, Text, TextTask

# isort: split
# Behind the others: tasks are listed in the order in which they are made known
from lightning_sal.tasks.perception import COUNTING, DETECTION, PERCEPTION

__all__ = [
    "COSOD",
    "COUNTING",
    "DETECTION",
    "PERCEPTION",
    "SEMANTIC",
    "SIS",
    "SOD",
    "TASKS",
    "VQA",
    "WITHOUT_REASONING",
    "AccuracyTask",
    "Answer",
    "BoxTask",
    "Expressions",
    "InstanceTask",
    "Measure",
    "ObjectBoxTask",
    "ObjectCountTask",
    "ObjectMaskTask",
    "ObjectTask",
    "Objects",
    "RegionTask",
    "TagInstances",
    "TagRegions",
    "TagTask",
    "Task",
    "Text",
    "TextTask",
    "answer_tags",
    "get_task",
    "instructions",
    "load_task",
    "register",
    "task_of",
]
