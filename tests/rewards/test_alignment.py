"""Alignment and its controls: against maps that are resized and summed, by hand arithmetic, and the public code's values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lightning_sal.rewards import Alignment, Annotated, Brevity, Centred, Chance, Elsewhere, Noise, Pointing, Response
from lightning_sal.samples import ImageGroup, Usage
from lightning_sal.tasks import COSOD, SIS, SOD, VQA, Text

SHARED = Path(__file__).parents[3] / "shared" / "fixtures" / "saliency_alignment" / "saliency_model_a"
SIZE = (20, 30)
SAID = {
    SOD: SOD.response("it is vivid", ["the dog", "the cat"]),
    SIS: SIS.response("they are vivid", ["the dog", "the cat"]),
    COSOD: COSOD.response("all have one", ["[semantic] dog"]),
    VQA: VQA.write("the dog is red", Text(text="red")),
}


def region(x0, y0, x1, y1, size=SIZE):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def answered(task, maps, *, masks=None, boxes=None, found=None, text=None, size=SIZE):
    """A response whose labels have these maps, one an image each."""
    text = SAID[task] if text is None else text
    images = tuple(torch.zeros(*size, 3, dtype=torch.uint8) for _ in range(len(maps[0]) if maps else 1))
    group = ImageGroup("sample-7", task.name, images, masks, question="What colour?", reference="red", boxes=boxes)
    return Response(group, text, task.parse(text), maps=tuple(map(tuple, maps)), prompt_masks=found)


def drawn(seed, rows=3, columns=4):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def resized(one, size=SIZE):
    return F.interpolate(one.double().clamp(min=0)[None, None], size=size, mode="bilinear")[0, 0]


def test_a_box_gets_the_share_of_the_resized_map_inside_it():
    one, box = drawn(0), torch.tensor([[3.0, 2.0, 14.0, 11.0], [20.0, 15.0, 29.0, 19.0]])
    scores = Alignment()([answered(VQA, [[one]], boxes=(box,))])
    large, inside = resized(one), region(3, 2, 14, 11) | region(20, 15, 29, 19)
    assert scores.values.item() == pytest.approx(float(large[inside].sum() / large.sum()), abs=1e-6)
    assert scores.known.tolist() == [True]
    assert scores.reasons == (None,)


def test_a_region_is_compared_with_the_sum_of_the_maps_of_all_expressions():
    """Which is taken before the ReLU: what speaks against one expression counts against the other."""
    first, second, mask = drawn(1), drawn(2), region(0, 0, 9, 9)
    scores = Alignment()([answered(SOD, [[first], [second]], masks=(mask[None],))])
    large = resized(first + second)
    assert scores.values.item() == pytest.approx(float(large[mask].sum() / large.sum()), abs=1e-6)


def test_several_images_are_one_whole():
    maps, masks = [drawn(3), drawn(4)], [region(0, 0, 9, 9), region(10, 10, 29, 19)]
    scores = Alignment()([answered(COSOD, [maps], masks=tuple(mask[None] for mask in masks))])
    large = [resized(one) for one in maps]
    inside = sum(float(one[mask].sum()) for one, mask in zip(large, masks, strict=True))
    assert scores.values.item() == pytest.approx(inside / sum(float(one.sum()) for one in large), abs=1e-6)


def test_each_instance_has_a_map_of_its_own():
    """The masks come in the other order than the instances, and the second expression's misses its instance altogether."""
    dog, cat = region(0, 0, 9, 9), region(20, 0, 29, 9)
    first, second = drawn(5), drawn(6)
    truth = (torch.stack([cat, dog]),)
    both = answered(SIS, [[first], [second]], masks=truth, found=(torch.stack([dog, cat]),))
    lost = replace(both, prompt_masks=(torch.stack([dog, region(0, 15, 5, 19)]),))
    shares = [float(resized(one)[own].sum() / resized(one).sum()) for one, own in ((first, dog), (second, cat))]
    values = Alignment()([both, lost]).values.tolist()
    assert values == pytest.approx([sum(shares) / 2, shares[0] / 2], abs=1e-6)


def test_nothing_to_look_at_is_0_with_a_reason_and_nothing_to_compare_with_is_unknown():
    box = (torch.tensor([[0.0, 0.0, 9.0, 9.0]]),)
    against = answered(VQA, [[-drawn(0).abs()]], boxes=box)
    malformed = answered(VQA, [], boxes=box, text="red")
    without = answered(SOD, [], masks=(region(0, 0, 3, 3)[None],), text="<think></think>" + SAID[SOD][29:])
    outside = answered(VQA, [[drawn(0)]], boxes=(torch.tensor([[90.0, 90.0, 99.0, 99.0]]),))
    broken = answered(VQA, [[drawn(0) * float("nan")]], boxes=box)
    scores = Alignment()([against, malformed, without, outside, broken])
    assert scores.values.tolist() == [0, 0, 0, 0, 0]
    assert scores.known.tolist() == [True, True, True, False, False]
    assert all(scores.reasons)
    assert "no mass" in scores.reasons[0]
    assert "found 0 <think>" in scores.reasons[1]
    with pytest.raises(ValueError, match="sample-7: alignment needs the boxes"):
        Alignment()([answered(VQA, [[drawn(0)]])])


def test_a_task_that_does_not_say_where_its_labels_stand_is_refused_and_never_0():
    response = answered(VQA, [], boxes=(torch.tensor([[0.0, 0.0, 9.0, 9.0]]),))
    silent = replace(response, answer=replace(response.answer, labels_at=()))
    with pytest.raises(ValueError, match="the task vqa does not say where its labels stand"):
        Alignment()([silent])


def test_controls_are_as_large_as_the_region():
    group = answered(VQA, [[drawn(0)]], boxes=(torch.tensor([[3.0, 2.0, 14.0, 11.0]]),)).group
    (true,), (moved,), (centred,) = Annotated()(group), Elsewhere()(group), Centred()(group)
    assert int(true.sum()) == int(moved.sum()) == 120
    assert not (true & moved).any()
    assert float(centred.sum()) == pytest.approx(120, rel=0.1)
    assert centred.equal(centred.flip(1, 2)) or abs(int(centred.sum()) - int((centred & centred.flip(1, 2)).sum())) < 40


def test_chance_is_what_a_map_that_is_the_same_everywhere_gets():
    response = answered(VQA, [[torch.ones(3, 4)]], boxes=(torch.tensor([[3.0, 2.0, 14.0, 11.0]]),))
    assert Chance()([response]).values.item() == pytest.approx(120 / 600)
    assert Alignment()([response]).values.item() == pytest.approx(120 / 600, abs=1e-6)


def test_brevity_and_noise_know_the_text_alone():
    response = replace(answered(VQA, [[drawn(0)]]), usage=Usage(output_tokens=10))
    scores = Brevity(40)([response, replace(response, usage=None)])
    assert scores.values[0].item() == pytest.approx(0.75)
    assert scores.known is not None
    assert scores.known.tolist() == [True, False]
    noise = Noise()([response, response, replace(response, text="other")]).values.tolist()
    assert noise[0] == noise[1] != noise[2]
    assert all(0 <= value < 1 for value in noise)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared, which lies beside the project where it is developed")
def test_rewards_equal_those_of_the_public_code_with_its_boxes_mended():
    import numpy as np

    run = json.loads((SHARED / "sample.json").read_text())["runs"]["main"]
    expected = np.load(SHARED / "expected.npz")
    height, width = expected["main__ref32_resized"].shape
    arrays = {
        "emit_noeps": "def_emit_noeps_sum",
        "key_noeps": "def_key_noeps_sum",
        "key": "def_key_sum",
        "ref": "ref64_sum",
    }
    for record in run["boxes"]:
        x0, y0, x1, y1 = json.loads(record["bbox"])
        box = torch.tensor([[x0 * width, y0 * height, x1 * width, y1 * height]], dtype=torch.float64)
        for name, array in arrays.items():
            one = torch.tensor(expected[f"main__{array}"])
            response = answered(VQA, [[one]], boxes=(box,), size=(height, width))
            scores = Alignment()([response])
            assert scores.values.item() == pytest.approx(record["right"][name], abs=1e-5), record["bbox"]


def test_the_pointing_game_asks_where_the_largest_value_lies():
    one = torch.zeros(3, 4)
    one[2, 3] = 1.0  # the lower right corner
    corner, middle = torch.tensor([[25.0, 15.0, 29.0, 19.0]]), torch.tensor([[3.0, 2.0, 14.0, 11.0]])
    responses = [answered(VQA, [[one]], boxes=(box,)) for box in (corner, middle)]
    assert Pointing()(responses).values.tolist() == [1.0, 0.0]
    two = answered(COSOD, [[0.5 * one, one.flip(0, 1)]], masks=(region(25, 15, 29, 19)[None], region(0, 0, 4, 4)[None]))
    assert Pointing()([two]).values.tolist() == [1.0]
