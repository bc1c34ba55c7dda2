"""Terms of the reward against hand arithmetic.

S-measure has a closed form where the object fills nothing (1 - share of the image that is predicted) or everything
(that share), so ground truths here are full or empty where a number is checked.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from lightning_sal.evaluation.metrics import Evaluation
from lightning_sal.metrics.functional import structure_measure
from lightning_sal.rewards import Correctness, Format, Response
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import TASKS
from lightning_sal.tasks.measures import primary

CONF = Path(__file__).resolve().parents[2] / "conf"
SAID = {"sod": "the dog", "sis": "the dog", "cosod": "[semantic] dog"}


def part(share: float, size: tuple[int, int] = (4, 8)) -> Tensor:
    """A mask of `size` whose left columns, a `share` of all, are True."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[:, : round(share * size[1])] = True
    return mask


def answered(task: str, masks: list[Tensor], targets: list[Tensor] | None, text: str | None = None) -> Response:
    """A response to the K images of `masks` and `targets`, each (N, H, W)."""
    text = TASKS[task].response("", [SAID[task]]) if text is None else text
    images = tuple(torch.zeros(*mask.shape[1:], 3, dtype=torch.uint8) for mask in masks)
    group = ImageGroup("sample-7", task, images, None if targets is None else tuple(targets))
    return Response(group, text, TASKS[task].parse(text), truncated=False, masks=tuple(masks))


def random_masks(seed: int, count: int, size: tuple[int, int]) -> Tensor:
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(seed)) > 0.5


def test_regions_are_measured_by_s_measure():
    full, empty = part(1)[None], part(0)[None]
    scores = Correctness()(
        [
            answered("sod", [part(0.25)[None]], [full]),
            answered("sod", [part(0.25)[None]], [empty]),
            answered("sod", [full], [full]),
            answered("cosod", [part(0.25)[None], part(0.5)[None], part(1)[None]], [full, empty, full]),
        ]
    )
    assert scores.values.tolist() == pytest.approx([0.25, 0.75, 1.0, (0.25 + 0.5 + 1.0) / 3])
    assert scores.reasons == (None, None, None, None)


def answers_of_instances() -> list[Response]:
    halves, empty = torch.stack([part(0.5), ~part(0.5)]), part(0)[None]
    return [
        answered("sis", [halves.flip(0)], [halves]),
        answered("sis", [torch.cat([halves, empty, empty])], [halves]),
        answered("sis", [torch.stack([part(0.25), part(0.5)])], [empty[:0]]),
        answered("sis", [halves], [halves], "<think></think><answer></answer>"),
    ]


def test_only_matched_instances_are_worth_something():
    # All found: 1. Two found and two named that are nowhere: L = 4. No true instance: nothing to find.
    assert Correctness()(answers_of_instances()).values.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0])


def test_iasm_as_it_is_defined_is_one_line_away():
    # What is left over is compared with an empty mask: an empty one scores 1, another 1 - its share of the image.
    config = CONF / "reward" / "iasm.yaml"
    reward = OmegaConf.load(config).model.init_args.reward.init_args
    (term,) = [term for term in reward.terms if term.class_path.endswith("Correctness")]
    correctness = Correctness(**term.init_args)
    assert correctness(answers_of_instances()).values.tolist() == pytest.approx([1.0, 1.0, (0.75 + 0.5) / 2, 0.0])
    regions = [answered("sod", [part(0.25)[None]], [part(1)[None]])]  # of other tasks nothing changes
    assert torch.equal(correctness(regions).values, Correctness()(regions).values)


@pytest.mark.parametrize("measures", [None, {"sis": "iasm"}, {"sod": "giou", "cosod": "e_mean"}])
def test_validation_and_reward_give_a_response_the_same(measures):
    rows = [
        answered("sod", [random_masks(1, 1, (9, 8))], [random_masks(2, 1, (9, 8))]),
        answered("sis", [random_masks(3, 4, (9, 8))], [random_masks(4, 2, (9, 8))]),
        answered("cosod", [random_masks(n, 1, (9, 8)) for n in (5, 6)], [random_masks(n, 1, (9, 8)) for n in (7, 8)]),
    ]
    correctness = Correctness(measures)
    measured = correctness(Evaluation().measure(rows)).values
    assert measured.tolist() == pytest.approx(correctness(rows).values.tolist(), abs=1e-6)
    chosen = {task: TASKS[task].measures() for task in SAID}
    names = {task: (measures or {}).get(task, primary(chosen[task])) for task in SAID}
    own = [[row[names[r.group.task]] for row in r.values or ()] for r in Evaluation().measure(rows)]
    assert measured.tolist() == pytest.approx([sum(values) / len(values) for values in own], abs=1e-6)


@pytest.mark.parametrize(
    ("measures", "line"),
    [
        ({"sis": "ap50"}, "correctness of sis cannot be 'ap50': take one of iasm, matched_s"),
        ({"sod": "mae"}, "correctness of sod cannot be 'mae': take one of s_measure, "),
        ({"sos": "iasm"}, "unknown task 'sos'"),
    ],
)
def test_a_measure_that_no_response_can_be_worth_is_refused(measures, line):
    with pytest.raises(ValueError, match=line) as error:
        Correctness(measures)
    assert len(str(error.value).splitlines()) == 1


def test_each_response_keeps_its_own_value_whatever_sizes_stand_beside_it():
    sizes = [(4, 8), (8, 4), (4, 8), (6, 6)]
    rows = [
        answered("sod", [random_masks(i, 1, size)], [random_masks(9 + i, 1, size)]) for i, size in enumerate(sizes)
    ] + [
        answered(
            "cosod", [random_masks(i, 1, size) for i, size in enumerate(sizes)], [part(0.5, s)[None] for s in sizes]
        )
    ]
    alone = [
        torch.stack([structure_measure(m, t)[0] for m, t in zip(row.masks, row.group.masks or (), strict=True)]).mean()
        for row in rows
    ]
    assert Correctness()(rows).values.tolist() == pytest.approx([float(value) for value in alone], abs=1e-6)


def test_without_an_expression_correctness_is_0_and_says_why():
    full = part(1)[None]
    rows = [
        answered("sod", [full], [full], text) for text in ("", "<answer></answer>", "<answer><ins>x</ins></answer>")
    ]
    scores = Correctness()(rows)
    assert scores.values.tolist() == [0.0, 0.0, 0.0]
    assert scores.reasons == tuple(row.answer.reason for row in rows)
    assert all(scores.reasons)


def test_an_expression_without_a_pixel_is_measured_and_named():
    scores = Correctness()([answered("sod", [part(0)[None]], [part(0)[None]])])
    assert scores.values.tolist() == [1.0]
    assert scores.reasons == ("no mask: the segmenter found no pixel for any expression",)


def test_unknown_ground_truth_is_refused_by_name():
    with pytest.raises(ValueError, match="sample-7: sod needs masks") as error:
        Correctness()([answered("sod", [part(1)[None]], None)])
    assert len(str(error.value).splitlines()) == 1


def test_format_is_that_of_the_task():
    full = part(1)[None]
    texts = [None, "<answer><rg>the dog</rg></answer>", "the dog"]
    scores = Format()([answered("sod", [full], [full], text) for text in texts])
    assert scores.values.tolist() == [1.0, 0.5, 0.0]
    assert scores.reasons[0] is None
    assert "<think>" in (scores.reasons[1] or "")
    assert "<answer>" in (scores.reasons[2] or "")


def test_a_truncated_response_is_called_so():
    group = ImageGroup("sample-7", "sod", (torch.zeros(4, 8, 3, dtype=torch.uint8),), (part(1)[None],))
    text = "<think>a dog"
    row = Response(group, text, TASKS["sod"].parse(text), truncated=True, masks=(part(0)[None],))
    for term in (Correctness(), Format()):
        assert term([row]).values.tolist() == [0.0]
        assert term([row]).reasons[0].startswith("cut off at the token limit: ")
