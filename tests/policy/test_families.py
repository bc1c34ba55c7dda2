"""The tiny models of all families: they load by transformers' own classes, and a prompt's logits are its own."""

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

TEXTS = ("Which regions stand out in these two?", "Which?")
SIZES = (((112, 112), (80, 160)), ((100, 70),))  # (height, width) of the images of each prompt


@pytest.fixture(scope="module")
def model(family_folder):
    return AutoModelForImageTextToText.from_pretrained(family_folder).eval()


@pytest.fixture(scope="module")
def read(family_folder):
    """What the processor makes of prompts, which may be several: images (3, H, W) uint8 before each text."""
    processor = AutoProcessor.from_pretrained(family_folder)

    def inputs(images, texts):
        chats = [
            [{"role": "user", "content": [*[{"type": "image"}] * len(shown), {"type": "text", "text": text}]}]
            for shown, text in zip(images, texts, strict=True)
        ]
        prompts = [processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
        options = {"padding": True, "padding_side": "left", "add_special_tokens": False, "return_tensors": "pt"}
        return processor(images=images, text=prompts, **options)

    return inputs


def pictures():
    return [[torch.randint(256, (3, *size), dtype=torch.uint8) for size in shown] for shown in SIZES]


@torch.no_grad()
def test_left_padding_changes_no_logits(model, read):
    images = pictures()
    together = model(**read(images, TEXTS)).logits
    for row, (shown, text) in enumerate(zip(images, TEXTS, strict=True)):
        alone = model(**read([shown], [text])).logits[0]
        torch.testing.assert_close(together[row, -len(alone) :], alone, atol=1e-4, rtol=0)
    assert 0.5 < together.std(-1).mean() < 2  # so that a wrong one would be seen


@torch.no_grad()
def test_each_image_counts(model, read):
    images = pictures()
    before = model(**read(images, TEXTS)).logits[:, -1]
    for place in range(2):
        changed = [list(shown) for shown in images]
        changed[0][place] = 255 - changed[0][place]
        after = model(**read(changed, TEXTS)).logits[:, -1]
        assert (after[0] - before[0]).abs().max() > 1e-2
        torch.testing.assert_close(after[1], before[1], atol=1e-4, rtol=0)


def test_any_text_comes_back(family_folder):
    tokenizer = AutoProcessor.from_pretrained(family_folder).tokenizer
    text = "<think>Two ränder, 鯨 🐋\n</think><answer><rg>red  disc</rg></answer>"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
