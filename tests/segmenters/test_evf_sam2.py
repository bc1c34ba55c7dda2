"""EVF-SAM2 at small sizes with random weights: what its users rely on."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lightning_sal.segmenters.evf_sam2 import EVFSAM2
from lightning_sal.segmenters.tiny import tiny_evf_sam2
from lightning_sal.tiny.segmenter_tokenizer import build_word_tokenizer

SHORT, LONG = "red ring", "[semantic] a green cross beside the blue square, not the red ring"


@pytest.fixture(scope="module")
def model() -> EVFSAM2:
    torch.manual_seed(0)
    tokenizer = build_word_tokenizer([SHORT, LONG] * 3)
    return tiny_evf_sam2(tokenizer).eval()


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def token_ids(model: EVFSAM2, *texts: str) -> list[Tensor]:
    return [torch.tensor(row) for row in model.tokenize(texts)]


def low_res(model: EVFSAM2, images: list[Tensor], index: list[int], texts: list[str]) -> Tensor:
    ids, padding = model.collate(token_ids(model, *texts))
    return model.low_res_logits(
        model.image_features(images), torch.tensor(index), model.beit_images(images), ids, padding
    )


def test_each_mask_has_the_size_of_its_image_and_the_sign_of_its_logits(model):
    images = [image(90, 140), image(112, 112, 1), image(30, 20, 2)]
    expressions = [[SHORT, LONG], [], [LONG]]
    masks = model.segment(images, expressions)
    assert [tuple(m.shape) for m in masks] == [(2, 90, 140), (0, 112, 112), (1, 30, 20)]
    assert all(m.dtype == torch.bool for m in masks)
    for rgb, texts, found in zip(images, expressions, masks, strict=True):
        assert torch.equal(found, model.mask_logits(rgb, token_ids(model, *texts)) > 0)


def test_no_images_and_no_expressions_give_no_masks(model):
    assert model.segment([], []) == []
    assert [tuple(m.shape) for m in model.segment([image(20, 30)] * 2, [[], []])] == [(0, 20, 30)] * 2


@torch.no_grad()
def test_unequal_expressions_and_other_images_in_a_batch_change_nothing(model):
    first, second = image(60, 80), image(112, 112, 1)
    together = low_res(model, [first, second], [0, 1, 0], [SHORT, LONG, LONG])
    alone = [
        low_res(model, [first], [0], [SHORT]),
        low_res(model, [second], [0], [LONG]),
        low_res(model, [first], [0], [LONG]),
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)
    assert (together[0] - together[2]).abs().max() > 1e-3  # the expression does matter


@torch.no_grad()
def test_every_token_sees_something(model, monkeypatch):
    """Padding too: where a row of a mask is empty, some kernels of a GPU give NaN."""
    masks, attend = [], torch.nn.functional.scaled_dot_product_attention

    def seen(*states, attn_mask=None, **options):
        masks.append(attn_mask)
        return attend(*states, attn_mask=attn_mask, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", seen)
    model.segment([image(60, 80)], [[SHORT, LONG]])
    given = [mask for mask in masks if mask is not None]
    assert given
    assert all(mask.dtype == torch.bool and mask.any(-1).all() for mask in given)


@torch.no_grad()
def test_ids_under_the_padding_change_nothing(model):
    rgb = [image(60, 80)]
    ids, padding = model.collate(token_ids(model, SHORT, LONG))
    assert padding[0].any()
    features, beit_images, index = model.image_features(rgb), model.beit_images(rgb), torch.zeros(2, dtype=torch.long)
    before = model.low_res_logits(features, index, beit_images, ids, padding)
    after = model.low_res_logits(features, index, beit_images, ids.masked_fill(padding, 7), padding)
    assert torch.equal(before, after)


def test_chunks_give_the_same_masks(model):
    images = [image(50, 40, seed) for seed in range(3)]
    expressions = [[SHORT, LONG, SHORT], [LONG], [SHORT, LONG]]
    small = copy.copy(model)
    small.max_batch = 2
    for whole, chunked in zip(model.segment(images, expressions), small.segment(images, expressions), strict=True):
        assert (whole != chunked).float().mean() < 1e-3  # a logit of 0 may fall either way


def test_an_image_is_encoded_once_whatever_its_expressions(model):
    encoded = []
    hook = model.visual_model.image_encoder.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0])))
    rgb, other, unasked = image(60, 80), image(60, 80, 1), image(60, 80, 2)
    try:
        model.segment([rgb, other, unasked, rgb], [[SHORT] * 5, [LONG], [], [LONG] * 3])
    finally:
        hook.remove()
    assert sum(encoded) == 2


def test_an_expression_that_several_responses_share_is_segmented_once(model):
    """As of the G responses to a prompt: the pairs are those that differ, the masks those of each response alone."""
    pairs = []
    hook = model.text_hidden_fcs[0].register_forward_pre_hook(lambda _, args: pairs.append(len(args[0])))
    rgb, other = image(60, 80), image(60, 80, 1)
    expressions = [[SHORT, LONG], [LONG], [LONG, SHORT, LONG], [SHORT]]
    try:
        together = model.segment([rgb, rgb, rgb, other], expressions)
    finally:
        hook.remove()
    assert sum(pairs) == 3
    for picture, texts, masks in zip([rgb, rgb, rgb, other], expressions, together, strict=True):
        for text, mask in zip(texts, masks, strict=True):
            assert torch.equal(mask, model.segment([picture], [[text]])[0][0])


def test_gradients_reach_every_part(model):
    low_res(model, [image(60, 80)], [0, 0], [SHORT, LONG]).square().mean().backward()
    try:
        for part in (
            model.visual_model.image_encoder.trunk.patch_embed.proj.weight,
            model.visual_model.sam_mask_decoder.mask_tokens.weight,
            model.beit3.text_embed.weight,
            model.beit3.vision_embed.proj.weight,
            model.text_hidden_fcs[0][0].weight,
        ):
            assert part.grad is not None
            assert part.grad.abs().sum() > 0
    finally:
        model.zero_grad()


def test_segment_leaves_modes_and_gradients_as_they_were(model):
    trained = copy.deepcopy(model)
    trained.visual_model.sam_mask_decoder.train()
    modes = [part.training for part in trained.modules()]
    masks = trained.segment([image(40, 40)], [[SHORT]])[0]
    assert [part.training for part in trained.modules()] == modes
    assert all(p.requires_grad for p in trained.parameters())
    assert not masks.requires_grad


def test_best_of_three_follows_the_predicted_iou(model):
    """Three masks are told apart by moving all the predicted IoU to one of them."""
    multi = copy.deepcopy(model)
    multi.multimask = True
    last = multi.visual_model.sam_mask_decoder.iou_prediction_head.layers[-1]
    grids = []
    for favourite in (1, 2, 3):  # 0 is the single mask
        with torch.no_grad():
            last.weight.zero_()
            last.bias.zero_()[favourite] = 9.0
            grids.append(low_res(multi, [image(60, 80)], [0], [SHORT]))
    assert (grids[0] - grids[1]).abs().max() > 1e-3
    assert (grids[1] - grids[2]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_work_and_come_close(model, dtype):
    rgb, ids = image(60, 80), token_ids(model, SHORT, LONG)
    exact = model.mask_logits(rgb, ids)
    rough = copy.deepcopy(model).to(dtype).mask_logits(rgb, ids)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()


@torch.no_grad()
def test_saving_and_loading_gives_the_same_logits(model, tmp_path):
    model.save_pretrained(tmp_path / "exact")
    loaded = EVFSAM2.from_pretrained(tmp_path / "exact")
    rgb, ids = image(60, 80), token_ids(model, SHORT, LONG)
    assert [row.tolist() for row in token_ids(loaded, SHORT, LONG, "日本")] == model.tokenize([SHORT, LONG, "日本"])
    assert torch.equal(loaded.mask_logits(rgb, ids), model.mask_logits(rgb, ids))
    assert not loaded.training


@torch.no_grad()
def test_fp16_files_load_as_float32_rounded_to_fp16(model, tmp_path):
    from safetensors.torch import load_file

    model.save_pretrained(tmp_path, torch.float16)
    assert load_file(tmp_path / "model.safetensors")["text_hidden_fcs.0.0.weight"].dtype == torch.float16
    loaded = EVFSAM2.from_pretrained(tmp_path)
    for (name, own), other in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(own.half().float(), other), name
    for own, other in zip(model.buffers(), loaded.buffers(), strict=True):
        assert torch.equal(own, other)


def test_nothing_is_overwritten_and_a_folder_without_weights_is_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        EVFSAM2.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    for gone in ("nothing", "model.safetensors"):  # as where the weights lie in shards
        (tmp_path / gone).unlink(missing_ok=True)
        with pytest.raises(FileExistsError, match=str(tmp_path)):
            model.save_pretrained(tmp_path)


def test_weights_of_another_size_are_refused_in_one_line(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["beit3"]["layers"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"unknown mm_extractor\.beit3\.encoder\.layers\.3\..* and \d+ more$") as error:
        EVFSAM2.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.segment([image(20, 20)], []), "1 images and 0 lists"),
        (lambda m: m.segment([image(20, 20).float()], [[SHORT]]), r"\(20, 20, 3\) torch.float32"),
        (lambda m: m.segment([image(20, 20).permute(2, 0, 1)], [[SHORT]]), r"\(3, 20, 20\) torch.uint8"),
        (lambda m: m.mask_logits(image(20, 20), [torch.zeros(65, dtype=torch.long)]), "65 tokens, BEiT-3 takes 64"),
    ],
)
def test_bad_input_is_an_error_of_one_line(model, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(model)
    assert "\n" not in str(error.value)


def test_an_endless_expression_is_cut_to_what_the_model_takes(model):
    text = "red ring " * 200
    assert len(model.tokenize([text])[0]) == 64
    assert model.tokenize([text])[0][-1] == model.tokenizer.eos_token_id
    assert model.segment([image(20, 20)], [[text]])[0].shape == (1, 20, 20)


def test_an_unknown_sam2_configuration_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"sam2_hiera_x\.yaml.*sam2_hiera_l\.yaml"):
        EVFSAM2(sam2_config="sam2_hiera_x.yaml")


def test_a_tokenizer_that_splits_semantic_is_refused():
    plain: Any = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0}, merges=[])))
    with pytest.raises(ValueError, match=r"'\[semantic\]' as \[0\]: add it as one token"):
        EVFSAM2(tokenizer=plain)


def run(script: str) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_building_leaves_hydra_to_the_application_and_prints_nothing():
    run(
        "from lightning_sal.segmenters.sam2_model import build_sam2\n"
        "build_sam2('sam2_hiera_t.yaml', {'model.image_encoder.trunk.drop_path_rate': 0.0}, 256)\n"
        "from hydra.core.global_hydra import GlobalHydra\n"
        "assert not GlobalHydra.instance().is_initialized()\n"
        "import hydra\n"
        "with hydra.initialize(config_path=None, version_base=None):\n"
        "    assert hydra.compose(overrides=['+a=1']).a == 1\n"
    )


def test_the_package_loads_nothing_heavy_until_asked():
    run("import sys, lightning_sal.segmenters\nassert not {'torch', 'sam2', 'transformers'} & set(sys.modules)")
