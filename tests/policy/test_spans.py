"""Tokens that hold parts of a response, by hand and against the public code's own spans."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sal.policy.spans import token_bytes, token_spans
from lightning_sal.tasks import VQA
from lightning_sal.tiny.policy import build_tokenizer

SHARED = Path(__file__).parents[3] / "shared" / "fixtures" / "saliency_alignment" / "saliency_rewards.json"


def test_a_part_has_the_tokens_of_its_first_and_last_byte():
    pieces = [b"<think>", b" a", b" re", b"d", b"", b" cup", b"</think>"]
    assert token_spans(pieces, [(8, 9), (10, 13), (8, 17)]) == [(1, 1), (2, 3), (1, 5)]


def test_a_character_of_several_tokens_is_whole():
    pieces = [b"a", "杯".encode()[:1], "杯".encode()[1:], b"b"]
    assert token_spans(pieces, [(0, 2), (1, 2), (2, 3)]) == [(0, 2), (1, 2), (3, 3)]


@given(
    st.lists(st.sampled_from([b"A", b"\xc3", b"\xa9", b"\xe6\x9d", b"\xaf", b"\xf0\x9f", b"\xff", b"\xed\xa0", b""]))
)
def test_faults_of_utf_8_are_characters(pieces):
    """Each character's bytes lie in its tokens, and neighbours never run backwards."""
    text = b"".join(pieces).decode(errors="replace")
    spans = token_spans(pieces, [(i, i + 1) for i in range(len(text))])
    assert all(first <= last <= following for (first, last), (following, _) in pairwise(spans))
    for character, (first, last) in zip(text, spans, strict=True):
        assert character in b"".join(pieces[first : last + 1]).decode(errors="replace") or character == "\ufffd"


@pytest.mark.parametrize("place", [(0, 0), (2, 1), (-1, 1), (0, 9)])
def test_what_is_no_part_is_refused(place):
    with pytest.raises(ValueError, match="are no part of a text of 4"):
        token_spans([b"ab", b"cd"], [place])


def test_bytes_of_tokens_are_the_text():
    tokenizer = build_tokenizer()
    text = "<think>The 杯子 is é red\n</think> x<|im_end|>"
    assert b"".join(token_bytes(tokenizer, tokenizer(text)["input_ids"])).decode() == text


@pytest.mark.skipif(not SHARED.is_file(), reason="needs ../shared, which lies beside the project where it is developed")
def test_spans_equal_those_of_the_public_code_or_the_right_ones():
    fixture = json.loads(SHARED.read_text())
    end = fixture["special_ids"]["<|im_end|>"]
    compared = 0
    for record in fixture["responses"]:
        assert (VQA.parse(record["text"]).reason is None) == record["valid"], record["id"]
        assert VQA.format_reward(record["text"]) == record["format_reward"], record["id"]
        if not record["valid"]:
            continue
        pairs = zip(record["ids"], record["pieces_hex"], strict=True)
        pieces = [b"" if token == end else bytes.fromhex(piece) for token, piece in pairs]
        answer = VQA.parse(b"".join(pieces).decode(errors="replace"))
        reasoning, (said,) = answer.reasoning_at, answer.labels_at
        wanted = {**record, **record.get("right", {})}
        assert list(map(list, token_spans(pieces, [reasoning, said]))) == [wanted["think_span"], wanted["answer_span"]]
        assert VQA.parse(record["text"]).text == record["judge_sees"].strip()
        compared += 1
    assert compared > 20
