"""The vision tower with all windows of one size in one call, against transformers' own."""

import copy

import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from lightning_sal.policy.backbone import Backbone


@pytest.fixture(scope="module")
def model():
    """Windows of 4 x 4 patches in the first two blocks, the whole image in the third."""
    torch.manual_seed(0)
    vision = dict(
        depth=3, hidden_size=32, num_heads=2, intermediate_size=48, out_hidden_size=32, fullatt_block_indexes=[2]
    )
    vision |= dict(window_size=56, patch_size=14, spatial_merge_size=2)
    text = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, vocab_size=64)
    text |= dict(intermediate_size=32, rope_parameters={"rope_type": "default", "mrope_section": [4, 6, 6]})
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(vision_config=vision, text_config=text)).eval()


def test_features_and_gradients_are_those_of_transformers(model):
    """Images whose borders cut windows: 14 x 10, 6 x 8 and 4 x 4 patches."""
    batched = Backbone(copy.deepcopy(model))
    assert list(batched.model.state_dict()) == list(model.state_dict())
    grid = torch.tensor([[1, 14, 10], [1, 6, 8], [1, 4, 4]])
    pixels = torch.randn(int(grid.prod(1).sum()), 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(0))
    results = []
    for of_images, tower in (
        (model.model.get_image_features(pixels, grid).pooler_output, model.model.visual),
        (batched.features(pixels, grid), batched.vision),
        (batched.model.model.get_image_features(pixels, grid).pooler_output, batched.vision),
    ):
        tower.zero_grad()
        features = torch.cat(of_images)
        features.sin().sum().backward()
        results.append((features.detach(), [p.grad for p in tower.parameters()]))
    (expected, gradients), (found, ours), past = results
    assert torch.equal(past[0], found)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    for one, two in zip(ours, gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_windows_of_one_size_take_one_call(model, monkeypatch):
    batched = Backbone(copy.deepcopy(model))
    calls = []
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "lightning_sal.policy.vision.F.scaled_dot_product_attention", lambda *qkv: calls.append(1) or attend(*qkv)
    )
    grid = torch.tensor([[1, 16, 16]] * 3)
    batched.features(torch.randn(3 * 256, 3 * 2 * 14 * 14), grid)
    assert len(calls) == 3
