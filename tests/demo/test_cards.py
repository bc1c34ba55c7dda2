"""What the page shows, as HTML."""

import torch
from PIL import Image

from lightning_sal.demo.cards import finished, strip, unfinished
from lightning_sal.inference.responses import Prediction
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import Expressions

PIXELS = torch.zeros(4, 6, 3, dtype=torch.uint8)
ONE = ImageGroup("a<b>.png", "sod", (PIXELS,), paths=("a<b>.png",))
TWO = ImageGroup("a.png", "cosod", (PIXELS, PIXELS), paths=("a.png", "b.png"))


def test_words_so_far_come_without_tags_whole_or_not():
    for text in ("<think>red", "<think>red</thi", "<think>red</think><answer><", "<think>red</think><answer><rg>"):
        (words,) = unfinished(ONE, {"m": text}).split('<p class="so-far">')[1:]
        assert words.partition("</p>")[0].strip() == "red"


def test_foreign_words_are_escaped():
    text = "<img src=x onerror=alert(1)> & </p>"
    shown = unfinished(ONE, {"<script>": text, "m": text})
    assert "<img" not in shown
    assert "<script" not in shown
    assert shown.count("&lt;img src=x onerror=alert(1)&gt; &amp; &lt;/p&gt;") == 2
    assert "a&lt;b&gt;.png" in unfinished(ONE, {"m": text})
    assert 'title="&quot;&gt;&lt;b&gt;.png"' in strip({'/tmp/x/"><b>.png': Image.new("RGB", (2, 2))})


def test_cards_are_named_by_photograph_and_by_model_where_there_are_several():
    def heads(shown):
        return [part.partition("</h2>")[0] for part in shown.split("<h2>")[1:]]

    assert heads(unfinished(ONE, {"m": ""})) == ["a&lt;b&gt;.png"]
    assert heads(unfinished(TWO, {"m": ""})) == ["2 photographs"]
    assert heads(unfinished(TWO, {"m": "", "n": ""})) == ["m · 2 photographs", "n · 2 photographs"]
    masks = (torch.ones(1, 4, 6, dtype=torch.bool),)
    answer = Prediction(ONE, "<think></think><answer><rg>red</rg></answer>", Expressions(("red",)), masks, 0.5, masks)
    assert heads(finished(ONE, {"m": answer, "n": answer})) == ["m · a&lt;b&gt;.png", "n · a&lt;b&gt;.png"]
