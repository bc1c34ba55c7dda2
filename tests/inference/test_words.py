"""Where each word came from: which parts there are, and that their maps are those of their tokens."""

import time
from dataclasses import replace

import pytest
import torch

from lightning_sal import Predictor
from lightning_sal.inference.responses import MAPS, gather
from lightning_sal.inference.words import sentence_places, word_places
from lightning_sal.samples import Rollout
from lightning_sal.tasks import Expressions, get_task
from lightning_sal.tiny.questions import question_group
from lightning_sal.tiny.scenes import scene_group

TEXT = (
    "<think>A dog-cart's wheel, 3.5 m wide! Is it red? Yes...\n\n--\n\u72ac\u3002\u732b </think>"
    "<answer><rg>[semantic] d\u00f4g</rg></answer>"
)


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load(max_new_tokens=64)


@pytest.fixture(scope="module")
def groups():
    return [scene_group(5, "sis", 1), scene_group(5, "cosod", 2), question_group(5, 0)]


def answered(policy, groups, texts):
    """Responses of these words, as if they had been sampled."""
    tokens, mask = policy.encode_responses(texts)
    zeros = torch.zeros(tokens.shape)
    return policy.encode(groups), Rollout(policy.decode(tokens, mask), tokens, mask, zeros, zeros[:, 0] > 0)


def returned(generator):
    """What a generator returns in the end."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def test_words_and_sentences_are_those_that_a_person_reads():
    answer = get_task("cosod").parse(TEXT)
    cut = [TEXT[slice(*place)] for place in word_places(TEXT, answer)]
    assert cut == [
        "A", "dog-cart's", "wheel", "3", "5", "m", "wide", "Is", "it", "red", "Yes", "\u72ac", "\u732b",
        "semantic", "d\u00f4g",
    ]  # fmt: skip
    cut = [TEXT[slice(*place)] for place in sentence_places(TEXT, answer)]
    assert cut == ["A dog-cart's wheel, 3.5 m wide!", "Is it red?", "Yes...", "\u72ac\u3002", "\u732b"]


def test_a_malformed_response_has_no_parts():
    answer = get_task("sod").parse("no block at all")
    assert word_places("no block at all", answer) == sentence_places("no block at all", answer) == []


@pytest.mark.parametrize("piece", [".", "a", " ", "\n", "-", "'a", ". ", "\u3002", "a-"])
def test_places_are_found_in_linear_time(piece):
    text = piece * (300_000 // len(piece)) + "!"
    answer = Expressions((), reasoning_at=(0, len(text)))
    start = time.perf_counter()
    word_places(text, answer)
    sentence_places(text, answer)
    assert time.perf_counter() - start < 5


def test_an_explanation_has_every_word_and_the_maps_of_its_tokens(predictor, groups):
    """Against the maps of single tokens, whose places are read off the lengths of decoded beginnings."""
    policy = predictor.policy
    for group, found in zip(groups, predictor.predict(groups, explained=True), strict=True):
        explanation = found.explanation
        answer = get_task(group.task).parse(found.text)
        assert [part.place for part in explanation.words] == word_places(found.text, answer)
        assert [part.place for part in explanation.sentences] == sentence_places(found.text, answer)
        assert [part.place for part in explanation.labels] == list(answer.labels_at)
        prompts, rollout = answered(policy, [group], [found.text])
        count = int(rollout.mask.sum())
        ends = [len(policy.decode(rollout.tokens[:, :n], rollout.mask[:, :n])[0]) for n in range(count + 1)]
        singles = policy.attribute(prompts, rollout.tokens, rollout.mask, [[(n, n) for n in range(count)]], [None])[0]
        for part in (*explanation.words, *explanation.sentences):
            assert found.text[slice(*part.place)] == part.text
            inside = [n for n in range(count) if ends[n] < part.place[1] and ends[n + 1] > part.place[0]]
            for image, values in enumerate(part.maps):
                torch.testing.assert_close(values, sum(singles[n][image] for n in inside), atol=1e-4, rtol=1e-4)
            assert len(part.maps) == len(group.images)


def test_maps_of_labels_are_those_that_a_reward_gets(predictor, groups):
    for group, found in zip(groups, predictor.predict(groups, explained=True), strict=True):
        prompts, rollout = answered(predictor.policy, [group], [found.text])
        (response,) = gather([group], rollout, predictor.segmenter, {MAPS}, policy=predictor.policy, prompts=prompts)
        assert len(found.maps) == len(response.maps) == len(found.explanation.labels) > 0
        for ours, theirs in zip(found.maps, response.maps, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_what_was_not_asked_for_is_not_computed(predictor, groups, monkeypatch):
    monkeypatch.setattr(
        type(predictor.policy), "attribute", lambda *_, **__: pytest.fail("a pass that nobody asked for")
    )
    (found,) = predictor.predict(groups[:1])
    assert found.maps is None
    assert found.explanation is None


def test_a_stream_is_explained_as_the_prediction_is(predictor, groups):
    (whole,) = predictor.predict(groups[:1], explained=True)
    streamed = returned(predictor.stream(groups[0], explained=True))
    for one, other in zip(whole.explanation.words, streamed.explanation.words, strict=True):
        assert (one.text, one.place) == (other.text, other.place)
        torch.testing.assert_close(one.maps, other.maps)


def test_a_response_without_words_is_explained_by_nothing(predictor, groups):
    mute = replace(predictor, max_new_tokens=1)
    (found,) = mute.predict(groups[:1], explained=True)
    assert found.explanation.words == found.explanation.sentences == found.explanation.labels == found.maps == ()
