"""What a task is: what the policy is asked, how its answer is read and written, and what it is measured by.

Legend: K images of a group of H x W pixels, E prompts that an answer makes, N masks of an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from lightning_sal.frames import Frame
from lightning_sal.samples import ImageGroup, Message
from lightning_sal.tasks.blocks import looks
from lightning_sal.tasks.measures import Measure

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T", bound="Answer")
LOOK = "While you reason, say between <{tag}> and </{tag}>, once or more, what you look at in the image at that moment."
WITHOUT_REASONING = " without reasoning"  # behind the name of a task, where instructions are listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was read from a response; a subclass holds what one kind of answer says.

    Args:
        reasoning: The text of the think block; empty where there is not exactly one.
        structure_ok: Whether the response has the blocks that are asked for, and nothing else.
        grammar_ok: Whether what the answer block holds keeps the task's grammar.
        reason: One line that says why the response is malformed, or None where it is well formed.
        reasoning_at: Where the reasoning stands in the response: its first character and the one behind its last; None
            where there is none.
        labels_at: Where each of `labels` stands in the response, likewise.
        answer_at: Where all that is answered stands, without the tags around it, likewise; None where none can be read.
    """

    reasoning: str = ""
    structure_ok: bool = True
    grammar_ok: bool = True
    reason: str | None = None
    reasoning_at: tuple[int, int] | None = field(default=None, compare=False)
    labels_at: tuple[tuple[int, int], ...] = field(default=(), compare=False)
    answer_at: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def format_reward(self) -> float:
        """0.5 for the structure + 0.5 for the grammar of the answer."""
        return 0.5 * self.structure_ok + 0.5 * self.grammar_ok

    @property
    def labels(self) -> tuple[str, ...]:
        """What is answered, for people to read: one text a prompt, or one in all where the task asks no segmenter."""
        return ()

    def fields(self) -> dict[str, Any]:
        """What is answered, as plain values by name, for files."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A task; a new one is a subclass, or one more object of a class that is there, which `register` makes known.

    Args:
        name: Key of the task in data, configs and names of metrics: letters, digits and _.
        title: The task in words.
        instruction: What the policy is asked, after the images.
        brief: The same where no reasoning is asked for.
        system: The system turn; empty for none.
        layout: Where `lightning_sal.datasets` finds how its samples lie on disk, as `module.NAME` of a `Layout`; empty where
            they lie in a JSONL alone.
        several: Whether a sample has two images or more, instead of one.
        reasoning: Whether a think block comes before the answer.
        look: Tag of the blocks that the reasoning must hold, one or more, none of them empty; empty where it need not.
    """

    name: str
    title: str
    instruction: str
    brief: str = ""
    system: str = ""
    layout: str = ""
    several: bool = False
    reasoning: bool = True
    look: str = ""

    needs: ClassVar[frozenset[str]] = frozenset()
    """Fields of an `ImageGroup` without which an answer cannot be measured."""
    has_question: ClassVar[bool] = False
    """Whether each sample has a question of its own, without which it cannot be answered."""
    prompt_type: ClassVar[type | None] = None
    """What a segmenter is asked by: `str` for words, `VisualPrompt`, or None where no segmenter is asked."""
    masks_per_image: ClassVar[int | None] = 0
    """How many masks an image has: 1 for a region, None for one an object, 0 for a task without masks."""
    scoring: ClassVar[str] = ""
    """Module by whose `prepare` predictions in files are scored; empty where there are none to score."""

    @property
    def label(self) -> str:
        """The name, and whether no reasoning is asked for: the key of its instruction where instructions are listed."""
        return self.name if self.reasoning else f"{self.name}{WITHOUT_REASONING}"

    def without_reasoning(self) -> Self:
        """The same task, answered at once."""
        return replace(self, instruction=self.brief, reasoning=False, look="")

    def ask(self, group: ImageGroup, instruction: str | None = None, look: str | None = None) -> str:
        """The text that follows the images of a group: its question, if it has one, and the instruction.

        Args:
            group: The group.
            instruction: In place of the task's own, as a model's folder states it.
            look: In place of `LOOK`, likewise.
        """
        instruction = self.instruction if instruction is None else instruction
        looking = ((LOOK if look is None else look).replace("{tag}", self.look),) if self.look else ()
        return "\n".join((*filter(None, (group.question,)), instruction, *looking))

    def messages(
        self, group: ImageGroup, instruction: str | None = None, look: str | None = None
    ) -> tuple[Message, ...]:
        """The conversation that the policy goes on with, whatever back end samples: system turn, images, text."""
        system = (Message("system", self.system),) if self.system else ()
        return (*system, Message("user", self.ask(group, instruction, look), len(group.images)))

    def view(self, image: Tensor) -> Tensor:
        """What the policy is shown of an (H, W, 3) uint8 image: the image itself, unless a task says otherwise."""
        return image

    @abstractmethod
    def parse(self, text: str) -> Any:
        """Read a response into the `Answer` of this kind; never raises, and takes time linear in the length of `text`."""

    def read_leniently(self, text: str) -> Any:
        """Read a response of a model that may never have seen the format, for what a segmenter can be asked.

        Like `parse`, of which it keeps the faults, it never raises and takes linear time; by default it is `parse`. What
        could not be an answer gives none.
        """
        return self.parse(text)

    @abstractmethod
    def write(self, reasoning: str, answer: Any) -> str:
        """Write the response of format reward 1 that parses into this answer.

        Args:
            reasoning: For the think block; empty where the task asks for none.
            answer: What `parse` shall find.

        Raises:
            ValueError: If they do not fit the task's format.
        """

    def looked(self, answer: T) -> T:
        """An answer as it was read, its structure faulty where the reasoning lacks the blocks that `look` asks for."""
        if not self.look or not answer.structure_ok or looks(answer.reasoning, self.look):
            return answer
        missing = f"no <{self.look}>...</{self.look}> in the reasoning, or nothing in it"
        return replace(answer, structure_ok=False, reason="; ".join(filter(None, (missing, answer.reason))))

    def locate(self, answer: Any, group: ImageGroup, frame: Frame) -> Any:
        """An answer with its places in pixels of the original image; itself where the task's answers state none.

        Args:
            answer: As `parse` read it.
            group: What it answers.
            frame: In which units it states places.
        """
        return answer

    def spoken(self, response: str, group: ImageGroup, frame: Frame) -> str:
        """A response that states places in pixels of the original image, in the units of a frame; see `locate`."""
        return response

    def answered(self, answer: Any) -> bool:
        """Whether an answer says something that can be measured; correctness is 0 where it does not."""
        return bool(answer.labels)

    def true_response(self, group: ImageGroup) -> str | None:
        """The response that is right, its places in pixels of the original image; None where a sample has none."""
        return group.response

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the tags around the parts of an answer, for pages, which set them off."""
        return ()

    def mend(self, text: str) -> tuple[tuple[str, ...], Any]:
        """Read a response of a model that was not trained on the format, where it can mean one thing alone.

        By default it must keep the format as any other.

        Returns:
            The texts that may hold its reasoning, the last the likeliest; and the `Answer`.

        Raises:
            ValueError: It cannot be read, and why.
        """
        answer = self.parse(text)
        if answer.reason is not None:
            raise ValueError(answer.reason)
        return (answer.reasoning,), answer

    def format_reward(self, text: str) -> float:
        """How far a response keeps the format: 0, 0.5 or 1."""
        return self.parse(text).format_reward

    def prompts(self, answer: Any, size: tuple[int, int]) -> tuple[Hashable, ...]:
        """What a segmenter is asked about an image, E prompts of `prompt_type` in the frame of the original image.

        Args:
            answer: What was read.
            size: (H, W) of the image.
        """
        return ()

    def compose(self, masks: Tensor) -> Tensor:
        """The task's masks of an image from those of its prompts: (E, H, W) bool -> (N, H, W) bool."""
        return masks

    def require(self, group: ImageGroup) -> None:
        """Check that a sample has what its answers are measured by.

        Raises:
            ValueError: It has not; the line names the sample and what is missing.
        """
        if self.has_question and not group.question:
            raise ValueError(f"{group.key}: {self.name} needs a question and this sample has none; give its question")
        if missing := [name for name in sorted(self.needs) if getattr(group, name) is None]:
            raise ValueError(
                f"{group.key}: {self.name} needs {missing[0]} and this sample has none; give its {missing[0]}"
            )

    @abstractmethod
    def agrees(self, answer: Any, group: ImageGroup) -> bool | None:
        """Whether an answer is exactly the annotated one; None where the sample has none."""

    @abstractmethod
    def measures(self) -> dict[str, Measure]:
        """Name -> what it is evaluated by; exactly one is primary."""

    def settings(self) -> dict[str, Any]:
        """How `metrics` measure where tools of the field differ, for the file of results; empty where they do not."""
        return {}

    @abstractmethod
    def metrics(self, **options: Any) -> dict[str, Any]:
        """New torchmetrics that give all of `measures` over many samples; `update` feeds them."""

    @abstractmethod
    def update(
        self,
        metrics: Mapping[str, Any],
        group: ImageGroup,
        answer: Answer | None,
        masks: Sequence[Tensor],
        scores: Tensor | None = None,
    ) -> list[dict[str, float]]:
        """Add a sample to `metrics`.

        Args:
            metrics: What `metrics` gave.
            group: The sample, with what `needs` names.
            answer: What was answered; None where masks come from elsewhere.
            masks: K tensors (N, H, W), bool or maps in [0, 1]; empty for a task without masks.
            scores: (N,) scores of the masks of a single image in [0, 1], where they have some.

        Returns:
            Its own values by measure: one dictionary an image, or one in all for a task without masks.
        """

    @abstractmethod
    def correctness(
        self, groups: Sequence[ImageGroup], answers: Sequence[Any], masks: Sequence[Sequence[Tensor] | None]
    ) -> list[float]:
        """The primary measure of B answers, averaged over their images, in [0, 1]; 0 where nothing can be read.

        Raises:
            ValueError: If a sample lacks what `needs` names.
        """
