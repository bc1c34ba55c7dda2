"""What is asked, how an answer is read and written, and what it is measured by."""

from lightning_sal.tasks.saliency import (
    SEMANTIC,
    TASKS,
    WITHOUT_REASONING,
    Answer,
    Task,
    get_task,
    instructions,
    register,
    task_of,
)

__all__ = [
    "SEMANTIC",
    "TASKS",
    "WITHOUT_REASONING",
    "Answer",
    "Task",
    "get_task",
    "instructions",
    "register",
    "task_of",
]
