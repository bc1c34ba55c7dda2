"""What a model behind an endpoint would be sent about samples: its size, what servers refuse, what is answered already."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lightning_sal.clients.endpoint import AskedModel, request_of
from lightning_sal.clients.endpoint_config import EndpointConfig
from lightning_sal.clients.planning import Conversation, forecast
from lightning_sal.clients.requests import Request
from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.frames import Shrunk
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import task_of

MOST_BYTES = 20_000_000  # of a request that Gemini's API takes, which is the strictest
NARROWEST = 200  # length by width of an image that the processors of Qwen and GLM models take


def conversation(group: ImageGroup, config: EndpointConfig) -> Conversation:
    """What a model is asked about a group, whose images may be blank."""
    return [turn.text for turn in task_of(group, config.look).messages(group)], len(group.images)


def request_about(group: ImageGroup, config: EndpointConfig) -> Request:
    """The request as it is sent."""
    return request_of(group, task_of(group, config.look).messages(group), config.longest_side)


def kept_answer(model: AskedModel, read: Callable[[], ImageGroup]) -> bool:
    """Whether a model's answer to a sample is kept, which only its pixels tell; not where they cannot be read."""
    try:
        return model.keeps(request_about(read(), model.config))
    except UnreadableSample:
        return False


class RequestCheck:
    """Looks at what a model behind an endpoint would be sent.

    Args:
        config: The model, and how it is asked.
        max_new_tokens: Limit of response tokens.
    """

    def __init__(self, config: EndpointConfig, max_new_tokens: int) -> None:
        self.model = AskedModel(config, max_new_tokens)
        self._asked: list[Conversation] = []
        self._kept = 0
        self._largest = (0, "")  # bytes, and of which sample

    def faults(self, name: str, group: ImageGroup) -> Iterator[str]:
        """A line for all of a sample that servers refuse; and takes it into the summary.

        Args:
            name: What lines name it by.
            group: The sample.
        """
        request = request_about(group, self.model.config)
        size = sent_bytes(request)
        self._largest = max(self._largest, (size, name))
        if self.model.keeps(request):
            self._kept += 1
        else:
            self._asked.append(conversation(group, self.model.config))
        if size > MOST_BYTES:
            yield (
                f"{name}: a request of {size / 1e6:.1f} MB, and Gemini's API takes {MOST_BYTES / 1e6:g}: lower "
                "policy.longest_side or data.group_size"
            )
        for number, image in enumerate(group.images, 1):
            height, width = Shrunk(self.model.config.longest_side).extent((image.shape[0], image.shape[1]))
            if max(height, width) > NARROWEST * min(height, width):
                yield (
                    f"{name}: image {number} is sent as {width} x {height} pixels, and many servers refuse more than "
                    f"{NARROWEST} to 1: crop it, or leave it out"
                )

    def summary(self) -> Iterator[str]:
        """What would be sent in all, and what that takes."""
        config, (size, name) = self.model.config, self._largest
        planned = forecast(self._asked, self.model.estimate, config.prices)
        most = max((self.model.estimate.most_input(*each) for each in self._asked), default=0)
        yield f"{config.name} at {config.address}: requests of up to {size / 1e6:.3g} MB ({name}) and {most:,} tokens"
        rows = ", ".join(f"{what} {about} to {at_most}" for what, about, at_most in planned.rows())
        yield f"{planned.requests} requests to send, {self._kept} answers kept already; {rows}"


def sent_bytes(request: Request) -> int:
    """Bytes of a request's body: its text, and its images in base64."""
    return sum(len(text.encode()) for text in request.texts) + sum(-(-len(image) // 3) * 4 for image in request.images)
