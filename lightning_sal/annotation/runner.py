"""Asking for all samples: so many at once, at a rate, again where it may help, and each ends in one of two files.

A sample is asked up to `answers` times: an answer that cannot be used is followed by a turn that says why, unless another
would fare no better: it is empty, reached the limit of tokens, or says what the model had said before. How each of these
requests is sent again where it failed on the way, `lightning_sal.clients.asking` says.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from lightning_sal.annotation.answers import canonical
from lightning_sal.annotation.output import Output
from lightning_sal.annotation.pictures import PictureCheck
from lightning_sal.annotation.requests import build
from lightning_sal.annotation.samples import Sample
from lightning_sal.annotation.wording import Wording
from lightning_sal.clients.api import Client
from lightning_sal.clients.asking import Asker
from lightning_sal.clients.budget import Budget, Stopped
from lightning_sal.clients.replies import Failure, Reply
from lightning_sal.datasets import UnreadableSample
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import get_task

NO_ANSWER = "no answer: "


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard a model is asked.

    Args:
        concurrency: Samples that are under way at once, >= 1.
        per_minute: Requests sent in a minute, or None for no limit.
        timeout: Seconds until a request counts as failed, or None.
        answers: Times that a sample is answered before it is rejected, >= 1.
        retries: Times that a request is sent again after a failure that may pass, >= 0.
        backoff: Seconds that the first wait is at most.
        failures: Samples in a row without any answer, or at first with answers that fail for one reason, after which the run
            stops, >= 1.
        side: Longest side of an image in pixels.
    """

    concurrency: int = 8
    per_minute: float | None = None
    timeout: float | None = 120.0
    answers: int = 3
    retries: int = 5
    backoff: float = 1.0
    failures: int = 10
    side: int = 768


@dataclass(slots=True)
class Tally:
    """How a run went.

    Args:
        accepted: Lines in the SFT JSONL.
        rejected: Kind of reason -> lines among the rejected.
        stopped: Why the run ended before its time, or None.
    """

    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    stopped: str | None = None


class Runner:
    """Asks for samples.

    Args:
        client: The model.
        wording: What it is asked.
        output: Where lines go.
        budget: What it may cost.
        limits: How hard it is asked.
        pictures: Keeps only answers whose masks agree with the ground truth; None keeps all.
        watch: Called whenever a sample has ended.
    """

    def __init__(
        self,
        client: Client,
        wording: Wording,
        output: Output,
        budget: Budget,
        limits: Limits,
        pictures: PictureCheck | None = None,
        watch: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        self.client, self.wording, self.output, self.budget = client, wording, output, budget
        self.limits, self.pictures, self.watch = limits, pictures, watch
        self.tally = Tally()
        self._asker = Asker(
            client, budget, limits.per_minute, limits.timeout, retries=limits.retries, backoff=limits.backoff
        )
        self._segmenter = ThreadPoolExecutor(1)  # one picture at a time, beside the requests
        self._unanswered: list[tuple[Sample, str, list[str]]] = []
        self._useless: Counter[str] = Counter()  # kinds of reasons why the answers to samples could not be used
        self._reason = ""  # the last of any

    async def run(self, samples: Sequence[Sample]) -> Tally:
        """Asks for all of them that are not done."""
        waiting = iter([sample for sample in samples if sample.key not in self.output.done])
        try:
            await asyncio.gather(*(self._work(waiting) for _ in range(self.limits.concurrency)))
            if self.tally.stopped is None:
                self._conclude()
        except Stopped as stop:
            self.tally.stopped = str(stop)
        finally:
            self._segmenter.shutdown(wait=False, cancel_futures=True)
            await self.client.close()
        return self.tally

    async def _work(self, waiting: Iterator[Sample]) -> None:
        """Takes samples as long as there are any; one that is under way when the run stops is brought to its end."""
        for sample in waiting:
            try:
                await self._annotate(sample)
            except Stopped as stop:
                self.tally.stopped = self.tally.stopped or str(stop)
            self.watch(self.tally)
            if self.tally.stopped:
                return

    async def _annotate(self, sample: Sample) -> None:
        try:
            group = await asyncio.to_thread(sample.record.read)
            request = await asyncio.to_thread(build, sample, group, self.wording, self.limits.side)
        except UnreadableSample as error:
            return self._reject(sample, f"unreadable: {error}", [])
        except ValueError as error:
            return self._reject(sample, str(error), [])
        reason, responses = "", []
        for _ in range(self.limits.answers):
            try:
                reply = await self._asker.ask(request)
            except Failure as failure:
                return self._fail(sample, failure, responses)
            self._answered()
            responses.append(reply.text)
            if reply.refusal:
                return self._reject(sample, f"refused: {reply.refusal}", responses)
            try:
                response = self._read(reply, group)
            except ValueError as fault:
                reason = str(fault)
                if reply.truncated or not reply.text.strip() or reply.text in responses[:-1]:
                    break
                request = request.corrected(reply.text, self.wording.correction.safe_substitute(fault=reason))
                continue
            if self.pictures is not None:
                loop = asyncio.get_running_loop()
                fault = await loop.run_in_executor(self._segmenter, self.pictures.fault, group, response)
                if fault is not None:
                    return self._reject(sample, fault, responses)
            self.output.accept(sample, response)
            self.tally.accepted += 1
            return None
        return self._reject(sample, reason, responses)

    def _read(self, reply: Reply, group: ImageGroup) -> str:
        if not reply.text.strip() and not reply.truncated:
            raise ValueError("empty: the model wrote nothing")
        task = get_task(group.task)
        one_each = task.masks_per_image is None and not task.several  # of several images each has a number of its own
        instances = len(group.masks[0]) if one_each and group.masks else None
        try:
            return canonical(
                reply.text,
                task,
                titles=self.wording.titles,
                forbidden=self.wording.forbidden,
                instances=instances,
            )
        except ValueError as error:
            if reply.truncated:
                raise ValueError(f"cut off at the limit of tokens: raise --max-tokens; {error}") from error
            raise

    def _reject(self, sample: Sample, reason: str, responses: list[str]) -> None:
        """Notes a sample that ends among the rejected.

        Raises:
            Stopped: So did all before it whose answers could not be used, for the same reason, and these are enough.
        """
        self._note(sample, reason, responses)
        if responses:
            self._useless[_kind(reason)] += 1
            if self._useless.total() >= self.limits.failures and not self.tally.accepted:
                self._check_useless(reason)

    def _note(self, sample: Sample, reason: str, responses: list[str]) -> None:
        self.output.reject(sample, reason, responses)
        self.tally.rejected[_kind(reason)] += 1
        self._reason = reason

    def _check_useless(self, last: str) -> None:
        if len(self._useless) == 1 and "pictures" not in self._useless:  # which are a matter of degree
            count = self._useless.total()
            raise Stopped(
                f"no answer to {count} sample{'s' * (count > 1)} can be used (--retry-rejected asks again), the last: {last}"
            )

    def _conclude(self) -> None:
        """Ends a run that nothing has stopped: where the model never gave a usable answer, the fault is not the samples'.

        Raises:
            Stopped: For that reason.
        """
        if self.output.accepted or self._useless:
            self._answered()
        elif self._unanswered:
            self._give_up()
        if not self.output.accepted:
            self._check_useless(self._reason)

    def _fail(self, sample: Sample, failure: Failure, responses: list[str]) -> None:
        """Notes a sample without an answer; it is rejected once it is clear that the fault lies with it.

        Raises:
            Stopped: It lies with all of them; the samples of this streak are not written, so they are asked again.
        """
        self._unanswered.append((sample, NO_ANSWER + str(failure), responses))
        if failure.fatal or len(self._unanswered) >= self.limits.failures:
            self._give_up()

    def _give_up(self) -> None:
        count, (_, reason, _) = len(self._unanswered), self._unanswered[-1]
        last = reason.removeprefix(NO_ANSWER)
        raise Stopped(f"{count} sample{'s' * (count > 1)} in a row without an answer, the last: {last}")

    def _answered(self) -> None:
        """The model answers: samples that failed before it did so failed on their own account."""
        unanswered, self._unanswered = self._unanswered, []
        for sample, reason, responses in unanswered:
            self._note(sample, reason, responses)


def _kind(reason: str) -> str:
    return reason.partition(":")[0]
