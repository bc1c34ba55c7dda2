"""SAM2 prompted by boxes and points, against `sam2`'s own image predictor on a small model with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_sal import segmenters
from lightning_sal.segmenters import SAM2Prompt, VisualPrompt

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # in sam2's own transforms
PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "sis" / "COCO-salient"
SIZE = 128
SIZES = {
    "model.image_encoder.trunk.embed_dim": 16,
    "model.image_encoder.trunk.num_heads": 1,
    "model.image_encoder.trunk.stages": [1, 1, 2, 1],
    "model.image_encoder.trunk.global_att_blocks": [3],
    "model.image_encoder.neck.backbone_channel_list": [128, 64, 32, 16],
    "model.image_encoder.neck.d_model": 64,
    "model.image_encoder.neck.position_encoding.num_pos_feats": 64,
}
MEMORY_SIZES = {
    "model.memory_attention.d_model": 64,
    "model.memory_attention.num_layers": 1,
    "model.memory_attention.layer.d_model": 64,
    "model.memory_attention.layer.dim_feedforward": 64,
    "model.memory_attention.layer.self_attention.embedding_dim": 64,
    "model.memory_attention.layer.cross_attention.embedding_dim": 64,
    "model.memory_attention.layer.cross_attention.kv_in_dim": 16,
    "model.memory_encoder.out_dim": 16,
    "model.memory_encoder.in_dim": 64,
    "model.memory_encoder.position_encoding.num_pos_feats": 16,
    "model.memory_encoder.mask_downsampler.embed_dim": 64,
    "model.memory_encoder.fuser.layer.dim": 64,
}
POINT = VisualPrompt(points=((20.5, 30.0),), labels=(1,))
OTHER_POINT = VisualPrompt(points=((70.0, 11.0),), labels=(0,))
POINTS = VisualPrompt(points=((20.5, 30.0), (60.0, 50.25), (5.0, 5.0)), labels=(1, 1, 0))
TWO_POINTS = VisualPrompt(points=((20.5, 30.0), (60.0, 50.25)), labels=(1, 0))
BOX = VisualPrompt(box=(10.0, 12.5, 60.0, 55.0))
BOTH = VisualPrompt(box=(10.0, 12.5, 60.0, 55.0), points=((20.5, 30.0),), labels=(1,))
ALL = [POINT, OTHER_POINT, POINTS, TWO_POINTS, BOX, BOTH]


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def whole_sam2(config: str) -> Any:
    """SAM2 as its package builds it for evaluation, memory and all, at small sizes."""
    import sam2
    from hydra.core.global_hydra import GlobalHydra
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    (file,) = (Path(sam2.__path__[0]) / "configs").rglob(config)
    yaml: Any = OmegaConf.load(file)
    stability = {"via_stability": True, "stability_delta": 0.05, "stability_thresh": 0.98}
    extra = {f"dynamic_multimask_{key}": value for key, value in stability.items()}
    for key, value in {**SIZES, **MEMORY_SIZES, "model.sam_mask_decoder_extra_args": extra}.items():
        OmegaConf.update(yaml, key, value, force_add=True)
    yaml.model.image_size = SIZE
    torch.manual_seed(0)
    model = instantiate(yaml.model, _convert_="all").eval()
    with torch.no_grad():  # the parameters that start at zero too
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
        # Far from ties between the three masks, and a single mask so steep that it is stable: no fallback to the three
        model.sam_mask_decoder.iou_prediction_head.layers[-1].weight.mul_(5)
        for parameter in model.sam_mask_decoder.output_hypernetworks_mlps[0].layers[-1].parameters():
            parameter.mul_(100)
    return model


@pytest.fixture(scope="module", params=["sam2_hiera_t.yaml", "sam2.1_hiera_t.yaml"])
def loaded(request, tmp_path_factory) -> tuple[Any, SAM2Prompt]:
    """SAM2's whole model, and ours from the file that it is published as."""
    whole = whole_sam2(request.param)
    file = tmp_path_factory.mktemp("weights") / "sam2.pt"
    torch.save({"model": whole.state_dict()}, file)
    return whole, SAM2Prompt.from_pretrained(file, sam2_config=request.param, sam2_overrides=SIZES, image_size=SIZE)


@pytest.fixture(scope="module")
def model() -> SAM2Prompt:
    torch.manual_seed(0)
    return SAM2Prompt("sam2_hiera_t.yaml", SIZES, SIZE).eval()


def predictor_logits(whole: Any, rgb: Tensor, prompt: VisualPrompt, multimask: bool) -> Tensor:
    """What SAM2's own predictor says at the image's size, the best of its masks by predicted IoU."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(whole)
    predictor._bb_feat_sizes = [(SIZE // step, SIZE // step) for step in (4, 8, 16)]
    predictor.set_image(rgb.numpy())
    masks, iou, _ = predictor.predict(
        point_coords=np.array(prompt.points) if prompt.points else None,
        point_labels=np.array(prompt.labels) if prompt.points else None,
        box=None if prompt.box is None else np.array(prompt.box),
        multimask_output=multimask,
        return_logits=True,
    )
    return torch.from_numpy(masks[iou.argmax()])


@torch.no_grad()
@pytest.mark.parametrize("prompt", ALL)
@pytest.mark.parametrize("size", [(90, 140), (300, 200)])  # one is squashed up, the other one down
def test_masks_equal_those_of_sam2s_own_predictor(loaded, prompt, size):
    whole, model = loaded
    rgb = image(*size)
    expected = predictor_logits(whole, rgb, prompt, multimask=prompt in (POINT, OTHER_POINT))
    found = model.mask_logits([rgb], [[prompt]])[0][0]
    torch.testing.assert_close(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    mask = model.segment([rgb], [[prompt]])[0][0]
    assert torch.equal(mask, found > 0)
    assert 0 < mask.float().mean() < 1


@torch.no_grad()
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="../shared is not here")
def test_true_boxes_and_points_on_photographs_give_the_iou_of_sam2s_own_predictor(loaded):
    """As Dr. Seg evaluates: box and point, the best of three masks; the mean IoU with the annotated masks is the same."""
    from lightning_sal.datasets import task_records
    from lightning_sal.tasks import SIS

    whole, model = loaded
    before, model.multimask = model.multimask, True
    ours, theirs = [], []
    for record in task_records(SIS, PHOTOGRAPHS)[:4]:
        group = record.read()
        (rgb,), (masks,) = group.images, group.masks or ((),)
        prompts = [true_prompt(mask) for mask in masks]
        for prompt, found, true in zip(prompts, model.segment([rgb], [prompts])[0], masks, strict=True):
            expected = predictor_logits(whole, rgb, prompt, multimask=True) > 0
            assert (found != expected).float().mean() < 1e-4  # where a logit is 0 but for rounding
            for values, mask in ((ours, found), (theirs, expected)):
                values.append(float((mask & true).sum() / (mask | true).sum()))
    model.multimask = before
    assert len(ours) > 5
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=1e-5)


def true_prompt(mask: Tensor) -> VisualPrompt:
    """The box around a mask, and its pixel that is farthest from its edge."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = mask.nonzero().T.tolist()
    inner = distance_transform_edt(np.pad(mask.numpy(), 1))[1:-1, 1:-1]
    y, x = np.unravel_index(inner.argmax(), inner.shape)
    return VisualPrompt((min(columns), min(rows), max(columns) + 1, max(rows) + 1), ((int(x), int(y)),), (1,))


@torch.no_grad()
@pytest.mark.parametrize("multimask", [True, False])
def test_the_number_of_masks_to_choose_from_can_be_set_for_all_prompts(loaded, multimask):
    """As Dr. Seg evaluates: the best of three for a box with a point."""
    whole, model = loaded
    rgb, before = image(90, 140), model.multimask
    model.multimask = multimask
    try:
        for prompt in (POINT, BOTH):
            expected = predictor_logits(whole, rgb, prompt, multimask)
            found = model.mask_logits([rgb], [[prompt]])[0][0]
            torch.testing.assert_close(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    finally:
        model.multimask = before


@torch.no_grad()
def test_a_batch_of_images_and_prompts_gives_each_its_own_mask(model):
    images, prompts = [image(90, 140), image(64, 80, 1), image(70, 80, 2)], [ALL, [], [BOX, POINT]]
    masks = model.segment(images, prompts)
    assert [tuple(mask.shape) for mask in masks] == [(6, 90, 140), (0, 64, 80), (2, 70, 80)]
    together = model.mask_logits([images[0], images[2]], [prompts[0], prompts[2]])
    for rgb, asked, grids in zip([images[0], images[2]], [prompts[0], prompts[2]], together, strict=True):
        for prompt, grid in zip(asked, grids, strict=True):
            torch.testing.assert_close(grid, model.mask_logits([rgb], [[prompt]])[0][0], atol=1e-4, rtol=0)


def test_an_image_is_encoded_once_and_prompts_of_a_kind_are_decoded_together(model):
    encoded, decoded = [], []
    hooks = [
        model.sam2.image_encoder.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0]))),
        model.sam2.sam_mask_decoder.register_forward_hook(lambda _, args, out: decoded.append(len(out[0]))),
    ]
    rgb = image(60, 80)
    try:
        model.segment([rgb, rgb], [ALL, [BOX, POINT]])
    finally:
        for hook in hooks:
            hook.remove()
    assert encoded == [1]
    # One point twice; three points, and a box with one; two points, and a box
    assert sorted(decoded) == [2, 2, 2]


@torch.no_grad()
def test_chunks_give_the_same_masks(model):
    images, prompts = [image(50, 40, seed) for seed in range(3)], [ALL, [BOX], [POINT, BOX]]
    whole = model.segment(images, prompts)
    model.max_batch, before = 1, model.max_batch
    try:
        for expected, found in zip(whole, model.segment(images, prompts), strict=True):
            assert (expected != found).float().mean() < 1e-3  # a logit of 0 may fall either way
    finally:
        model.max_batch = before


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_close(loaded, tmp_path, dtype):
    """Points are placed in float32: halves of large coordinates would miss them."""
    from safetensors.torch import save_file

    whole, model = loaded
    save_file({key: value.clone() for key, value in whole.state_dict().items()}, tmp_path / "sam2.safetensors")
    config = "sam2.1_hiera_t.yaml" if whole.pred_obj_scores_mlp else "sam2_hiera_t.yaml"
    half = SAM2Prompt.from_pretrained(tmp_path, dtype, sam2_config=config, sam2_overrides=SIZES, image_size=SIZE)
    assert {p.dtype for p in half.parameters()} == {dtype}
    rgb = image(90, 140)
    exact, rough = (each.mask_logits([rgb], [[POINT, POINTS, BOTH]])[0] for each in (model, half))
    with torch.autocast("cpu", dtype):
        cast = model.mask_logits([rgb], [[POINT, POINTS, BOTH]])[0]
    for other in (rough, cast):
        assert other.dtype == torch.float32
        assert ((other - exact).abs().amax((1, 2)) < 0.1 * exact.abs().amax((1, 2))).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a box or a point"),
        ({"points": [(1, 2)]}, r"1 points and labels \[\]: give a 0 or 1 each"),
        ({"points": [(1, 2)], "labels": [2]}, r"labels \[2\]"),
        ({"box": (0, 0, float("nan"), 3)}, "a coordinate that is no number"),
    ],
)
def test_a_prompt_that_shows_nothing_is_an_error_of_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        VisualPrompt(**arguments)
    assert "\n" not in str(error.value)


def test_prompts_from_lists_arrays_and_tensors_are_the_same_prompt():
    wanted = VisualPrompt(box=(1.0, 2.0, 3.0, 4.0), points=((5.0, 6.0),), labels=(1,))
    assert VisualPrompt([1, 2, 3, 4], [[5, 6]], [1]) == wanted
    assert VisualPrompt(torch.tensor([1, 2, 3, 4]), torch.tensor([[5, 6]]), torch.tensor([1])) == wanted
    assert len({wanted, VisualPrompt(np.array([1, 2, 3, 4]), np.array([[5, 6]]), np.array([1]))}) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has 0 files of weights: name the one to read"),
        (["a.pt", "b.safetensors"], r"has 2 files of weights \(a.pt, b.safetensors\)"),
    ],
)
def test_a_folder_must_hold_one_file_of_weights(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=message):
        SAM2Prompt.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt are not there"):
        SAM2Prompt.from_pretrained(tmp_path / "nowhere.pt")


class Touch:
    """What a hostile file would run on being read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_file_that_would_run_code_is_refused_in_one_line(tmp_path):
    torch.save({"model": {"x": Touch(tmp_path / "ran")}}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"bad\.pt holds more than tensors and plain values") as error:
        SAM2Prompt.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_size_are_refused_in_one_line(model, tmp_path):
    torch.save(model.sam2.state_dict(), tmp_path / "small.pt")
    with pytest.raises(ValueError, match=r"small\.pt does not fit this model: .* and \d+ more$") as error:
        SAM2Prompt.from_pretrained(tmp_path, sam2_config="sam2_hiera_t.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["EVFSAM2", "SAM2Prompt"])
def test_a_config_can_name_weights_and_dtype(name):
    """As `segmenter: {class_path: lightning_sal.segmenters.EVFSAM2.from_pretrained, init_args: ...}`."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--segmenter", type=getattr(segmenters, name))
    init_args = {"source": "owner/name", "dtype": "torch.bfloat16"}
    if name == "SAM2Prompt":
        init_args |= {"sam2_config": "sam2.1_hiera_t.yaml", "multimask": True}
    class_path = f"lightning_sal.segmenters.{name}.from_pretrained"
    read = parser.parse_object({"segmenter": {"class_path": class_path, "init_args": init_args}})
    assert read.segmenter.init_args.dtype == torch.bfloat16
