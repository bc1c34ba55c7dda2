"""The small segmenter's tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_sal.tiny.segmenter_tokenizer import build_word_tokenizer

TOKENIZER = build_word_tokenizer(["red ring", "blue square", "[semantic] ring"] * 3)


def pieces(text: str) -> list[str]:
    return TOKENIZER.convert_ids_to_tokens(TOKENIZER(text)["input_ids"])


def test_special_tokens_have_the_ids_of_the_public_tokenizer():
    assert TOKENIZER.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]


def test_known_words_and_semantic_are_one_token_each():
    assert pieces("[semantic] ring") == ["<s>", "[semantic]", "Ġring", "</s>"]
    assert pieces("red ring") == ["<s>", "Ġred", "Ġring", "</s>"]


@pytest.mark.parametrize("same", ["Red Ring", "  red ring ", "red\n\tring", "RED RING"])
def test_case_and_white_space_do_not_matter(same):
    assert TOKENIZER(same)["input_ids"] == TOKENIZER("red ring")["input_ids"]


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_encodes_without_an_unknown_token(text):
    text = text.replace("<", "")  # a special token written out stays that token
    ids = TOKENIZER(text)["input_ids"]
    assert ids[0] == 0
    assert ids[-1] == 2
    assert 3 not in ids
    assert max(ids) < len(TOKENIZER)
