"""The published EVF-SAM2: its keys at full size, and a small folder in its layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import save_file
from torch import Tensor

from lightning_sal.segmenters import EVFSAM2, published
from tests.segmenters.parts import FIXTURES, load, needs_fixtures, small_arguments, write_tokenizer

TEXTS = ["red ring", "a green cross beside the blue square", "hair"]
CONFIG = {
    "model_type": "evf",
    "architectures": ["EvfSam2Model"],
    "hidden_size": 1024,
    "out_dim": 256,
    "sam_scale": "large",
    "mm_extractor_scale": "large",
    "torch_dtype": "float16",
}
# What SAM2 needs to follow an object through a video alone
MEMORY = {
    "memory_attention", "memory_encoder", "mask_downsample", "maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_ptr",
    "obj_ptr_proj",
}  # fmt: skip


@needs_fixtures
@pytest.mark.parametrize("semantic", [False, True])
def test_every_published_key_and_shape_is_ours_or_of_the_memory_of_sam2(semantic):
    listed = json.loads((FIXTURES / "evf_sam2_keys.json").read_text())["keys"]
    published_shapes = {key: tuple(stated["shape"]) for key, stated in listed.items()}
    assert len(published_shapes) == 1875
    with init_empty_weights():
        model = EVFSAM2(**published.constructor_arguments(CONFIG, semantic=semantic))
    assert all(parameter.is_meta for parameter in model.parameters())
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    left_out = {key for key in published_shapes if key.startswith("visual_model.") and key.split(".")[1] in MEMORY}
    assert own == {key: shape for key, shape in published_shapes.items() if key not in left_out}
    assert {key.split(".")[1] for key in left_out} == MEMORY


@pytest.mark.parametrize(
    ("sam_scale", "mm_extractor_scale", "expected"),
    [
        ("large", "large", ("sam2_hiera_l.yaml", 1024, 24, 16, 4096)),
        ("tiny", "base", ("sam2_hiera_t.yaml", 768, 12, 12, 3072)),
    ],
)
def test_the_published_scales_are_those_sizes(sam_scale, mm_extractor_scale, expected):
    scales = {"sam_scale": sam_scale, "mm_extractor_scale": mm_extractor_scale}
    arguments = published.constructor_arguments(CONFIG | scales, semantic=False)
    beit3 = arguments["beit3"]
    assert (arguments["sam2_config"], *(beit3[k] for k in ("width", "layers", "heads", "hidden"))) == expected
    assert (arguments["hidden_size"], arguments["out_dim"]) == (1024, 256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sam_scale": "huge"}, "sam_scale = 'huge': known are large, tiny"),
        ({"mm_extractor_scale": None}, "mm_extractor_scale = None: known are large, base"),
        ({"out_dim": None}, "out_dim = None"),
    ],
)
def test_an_unknown_scale_or_a_missing_size_is_an_error_of_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        published.constructor_arguments(CONFIG | change, semantic=True)
    assert "\n" not in str(error.value)


@pytest.fixture
def small_scale(monkeypatch) -> None:
    """The scale "large" is as small as the fixtures."""
    sizes = small_arguments()
    sam = {key: sizes[key] for key in ("sam2_config", "sam2_overrides", "image_size")}
    monkeypatch.setitem(published.SAM_SCALES, "large", sam)
    monkeypatch.setitem(published.BEIT3_SCALES, "large", sizes["beit3"])


def write_published(
    folder: Path, *, semantic: bool, half: bool = False, shards: int = 1, changed: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The fixtures' weights in the published layout; the tensors that were written."""
    folder.mkdir(exist_ok=True)
    write_tokenizer(folder, TEXTS, semantic=semantic)
    sizes = small_arguments()
    (folder / "config.json").write_text(json.dumps(CONFIG | {k: sizes[k] for k in ("hidden_size", "out_dim")}))
    state = load("evf_sam2_small_weights.safetensors") | dict(changed or {})
    if half:  # as published: SAM2 in fp16, its buffer and all the rest in fp32
        sam = [key for key in state if key.startswith("visual_model.") and "gaussian" not in key]
        state |= {key: state[key].half() for key in sam}
    if shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return state
    names = {key: f"model-{1 + n % shards:05}-of-{shards:05}.safetensors" for n, key in enumerate(sorted(state))}
    for name in set(names.values()):
        save_file({key: state[key] for key in state if names[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return state


@needs_fixtures
@torch.no_grad()
@pytest.mark.parametrize(("semantic", "shards"), [(False, 1), (True, 2)])
@pytest.mark.filterwarnings("ignore:.*the published one is 64002")
def test_a_published_folder_gives_the_masks_of_the_reference(small_scale, tmp_path, semantic, shards):
    """The multitask checkpoint the best of three masks, the other one the single mask, here a stable one."""
    changed = {} if semantic else load("evf_sam2_small_overlay_stable.safetensors")
    write_published(tmp_path, semantic=semantic, shards=shards, changed=changed)
    model = EVFSAM2.from_pretrained(tmp_path)
    golden = load("evf_sam2_small256.safetensors")
    assert not model.training
    assert all(p.requires_grad and p.dtype == torch.float32 and not p.is_meta for p in model.parameters())
    for image in (0, 1):
        ids = [golden[f"ids_{image}_{expression}"] for expression in (0, 1)]
        logits = model.mask_logits(golden[f"image_{image}_rgb_u8"], ids)
        for expression in (0, 1):
            single = golden[f"final_{image}_{expression}_single_stable"]
            expected = golden[f"forward_pred_{image}"][expression] if semantic else single
            atol = 1e-4 if semantic else 2e-4  # logits reach 79 there: the reference itself is off by 9e-5
            torch.testing.assert_close(logits[expression], expected, atol=atol, rtol=0)
            assert torch.equal(logits[expression] > 0, expected > 0)


@needs_fixtures
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_parameters_have_the_dtype_asked_for_and_the_values_of_the_file(small_scale, tmp_path, dtype):
    written = write_published(tmp_path, semantic=False, half=True)
    model = EVFSAM2.from_pretrained(tmp_path, dtype)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert torch.equal(parameter, written[name].to(dtype)), name
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, written[name])


@needs_fixtures
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 0.06), (torch.float16, 0.02)])
def test_half_precision_comes_close_and_unequal_expressions_do_not_change_each_other(
    small_scale, tmp_path, dtype, rounding
):
    """Processors differ in how they sum bfloat16, whose numbers have three bits fewer, in batches of one and of two."""
    write_published(tmp_path, semantic=False)
    model = EVFSAM2.from_pretrained(tmp_path, dtype)
    golden = load("evf_sam2_small256.safetensors")
    rgb, ids = golden["image_0_rgb_u8"], [golden[f"ids_0_{expression}"] for expression in (0, 1)]
    assert len(ids[0]) != len(ids[1])
    # The single mask's fallback may fall either way: the grids of best masks are compared
    model.multimask = True
    together = model.mask_logits(rgb, ids)
    expected = golden["forward_pred_0"]
    assert (together - expected).abs().max() < 0.1 * expected.abs().max()
    for row, mask in zip(ids, together, strict=True):
        alone = model.mask_logits(rgb, [row])[0]
        assert (mask - alone).abs().max() < rounding * expected.abs().max()


@needs_fixtures
def test_the_plain_checkpoint_never_sees_the_marker(small_scale, tmp_path):
    write_published(tmp_path / "plain", semantic=False)
    plain = EVFSAM2.from_pretrained(tmp_path / "plain")
    assert plain.tokenize(["[semantic] red ring"]) == plain.tokenize(["red ring"])
    rgb = load("evf_sam2_small256.safetensors")["image_0_rgb_u8"]
    marked, bare = plain.segment([rgb], [["[semantic] red ring", "red ring"]])[0]
    assert torch.equal(marked, bare)


@needs_fixtures
def test_the_multitask_checkpoint_sees_the_marker_as_one_token_and_another_id_is_told(small_scale, tmp_path):
    write_published(tmp_path, semantic=True)
    with pytest.warns(UserWarning, match=r"\[semantic\] the id \d+, the published one is 64002") as warned:
        model = EVFSAM2.from_pretrained(tmp_path)
    assert "\n" not in str(warned[0].message)
    marker = json.loads((tmp_path / "added_tokens.json").read_text())["[semantic]"]
    assert model.tokenize(["[semantic] red ring"])[0] == [0, marker, *model.tokenize(["red ring"])[0][1:]]


@pytest.mark.parametrize("semantic", [False, True])
@pytest.mark.filterwarnings("ignore:.*the published one is 64002")
def test_ids_are_those_of_sentencepiece_plus_one_between_start_and_end(tmp_path, semantic):
    processor = write_tokenizer(tmp_path, TEXTS, semantic=semantic)
    tokenizer, knows = published.load_tokenizer(tmp_path)
    assert knows is semantic
    for text in [*TEXTS, "the  blue ring", "square red hair"]:
        assert tokenizer(text)["input_ids"] == [0, *(piece + 1 for piece in processor.encode(text)), 2]


@needs_fixtures
@pytest.mark.parametrize("semantic", [False, True])
@pytest.mark.filterwarnings("ignore:.*the published one is 64002")
def test_a_published_checkpoint_saved_as_our_own_behaves_the_same(small_scale, tmp_path, semantic):
    write_published(tmp_path / "published", semantic=semantic)
    first = EVFSAM2.from_pretrained(tmp_path / "published")
    first.save_pretrained(tmp_path / "own")
    again = EVFSAM2.from_pretrained(tmp_path / "own")
    rgb, texts = load("evf_sam2_small256.safetensors")["image_0_rgb_u8"], ["[semantic] hair", "red ring"]
    assert again.tokenize(texts) == first.tokenize(texts)
    assert (again.multimask, again.semantic) == (semantic, semantic)
    assert torch.equal(again.segment([rgb], [texts])[0], first.segment([rgb], [texts])[0])


@needs_fixtures
@pytest.mark.parametrize("gone", ["config.json", "sentencepiece.bpe.model", "model-00002-of-00002.safetensors"])
def test_a_missing_file_is_an_error_of_one_line(small_scale, tmp_path, gone):
    write_published(tmp_path, semantic=False, shards=2)
    (tmp_path / gone).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {gone}") as error:
        EVFSAM2.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_the_folder_of_another_model_is_an_error_of_one_line(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam2", "architectures": ["Sam2Model"]}))
    with pytest.raises(ValueError, match=r"config\.json is not of an EVF-SAM2") as error:
        EVFSAM2.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


@needs_fixtures
def test_a_wrong_weight_is_an_error_of_one_line(small_scale, tmp_path):
    state = write_published(tmp_path, semantic=False)
    state["text_hidden_fcs.0.0.bias"] = torch.zeros(1)
    state["text_hidden_fcs.0.9.bias"] = torch.zeros(1)
    del state["text_hidden_fcs.0.2.bias"]
    save_file(state, tmp_path / "model.safetensors")
    wrong = r"missing text\S+2.bias; unknown text\S+9.bias; text\S+0.bias is \(1,\) instead of \(64,\)$"
    with pytest.raises(ValueError, match=wrong) as error:
        EVFSAM2.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


@needs_fixtures
def test_a_hub_name_fetches_only_what_is_read(small_scale, tmp_path, monkeypatch):
    asked: list[Any] = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, set(allow_patterns)))
        return str(tmp_path)

    write_published(tmp_path, semantic=False)
    monkeypatch.setattr("lightning_sal.segmenters.weights.require_hub", lambda _: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    EVFSAM2.from_pretrained("YxZhang/evf-sam2")
    assert asked == [("YxZhang/evf-sam2", {"*.json", "sentencepiece.bpe.model", "*.safetensors"})]


@pytest.mark.parametrize("name", ["nowhere", "./nowhere/at-all", "a/b/c", "~/evf-sam2", "owner/two words"])
def test_a_name_that_cannot_be_one_is_an_error_of_one_line(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=f"segmenter '{name}': there is no such folder") as error:
        EVFSAM2.from_pretrained(name)
    assert "\n" not in str(error.value)


def test_what_the_hub_does_not_give_is_an_error_of_one_line(monkeypatch):
    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        raise ConnectionError("404 Client Error\n\nRepository Not Found")

    monkeypatch.setattr("lightning_sal.segmenters.weights.require_hub", lambda _: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(FileNotFoundError, match=r"'owner/name'.*the hub gives none: 404 Client Error$"):
        EVFSAM2.from_pretrained("owner/name")
