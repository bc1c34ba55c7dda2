"""The files that say what a model is asked and what it must not say; a user may replace any of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

PACKAGED = Path(__file__).parent / "prompts"
QUESTION = "{}.md"  # by the name of a task
_SENTENCE = re.compile(r"[.;!?\n]")


@dataclass(frozen=True)
class Forbidden:
    """Words that an answer must not hold.

    Args:
        entries: (pattern, pattern of what makes it harmless in the same sentence, or None).
    """

    entries: tuple[tuple[re.Pattern[str], re.Pattern[str] | None], ...]

    @classmethod
    def parse(cls, text: str) -> Forbidden:
        """Of a file like `prompts/forbidden.txt`, whose head says how it is written."""
        entries = []
        for line in text.splitlines():
            words, _, harmless = line.partition("|")
            if words.strip() and not line.startswith("#"):
                allowed = [part for part in harmless.split(",") if part.strip()]
                entries.append((_any_of([words]), _any_of(allowed) if allowed else None))
        return cls(tuple(entries))

    def find(self, text: str) -> str | None:
        """The first forbidden words of a text as they stand there, or None."""
        for sentence in _SENTENCE.split(text):
            for words, harmless in self.entries:
                if (found := words.search(sentence)) and not (harmless and harmless.search(sentence)):
                    return found.group()
        return None


@dataclass(frozen=True)
class Wording:
    """What a model is asked for a task.

    Args:
        question: With the placeholders $images, $instances, $category, $noise, $question, $reference, $boxes and $points.
        correction: What follows an answer that cannot be used, with the placeholder $fault.
        titles: Of the steps of the reasoning, in order: the headings `## ...` of the question.
        forbidden: What an answer must not say.
    """

    question: Template
    correction: Template
    titles: tuple[str, ...]
    forbidden: Forbidden

    @classmethod
    def read(cls, task: str, folder: Path | None = None) -> Wording:
        """The wording of a task.

        Args:
            task: Name of the task.
            folder: Its files take the place of the package's of the same name.

        Raises:
            FileNotFoundError: The folder holds none of these files, or there is no question for the task.
        """
        own = QUESTION.format(task)
        names = list(dict.fromkeys([own, *sorted(path.name for path in PACKAGED.iterdir())]))
        if folder is not None and not any((folder / name).is_file() for name in names):
            raise FileNotFoundError(f"{folder}: holds none of {', '.join(names)}")
        folders = [PACKAGED] if folder is None else [folder, PACKAGED]

        def text(name: str) -> str:
            return next(place / name for place in folders if (place / name).is_file()).read_text(encoding="utf-8")

        if not any((place / own).is_file() for place in folders):
            raise FileNotFoundError(f"no question for the task {task}: write {own}, and give its folder by --prompts")
        question = text(own)
        titles = re.findall(r"^##[ \t]+(.+?)[ \t]*$", question, re.MULTILINE)
        return cls(
            Template(question), Template(text("again.md")), tuple(titles), Forbidden.parse(text("forbidden.txt"))
        )


def _any_of(phrases: Sequence[str]) -> re.Pattern[str]:
    """Any of some phrases in whole words, with white space or hyphens between the words of a phrase."""
    escaped = [r"[\s-]+".join(map(re.escape, phrase.split())) for phrase in phrases]
    return re.compile(rf"\b(?:{'|'.join(escaped)})\b", re.IGNORECASE)
