"""What the tests of the modules share."""

from functools import partial

import lightning as L
import torch
from torch import nn

from lightning_sal.datamodules import ScenesDataModule
from lightning_sal.modules import CGPO, SFT
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.rewards import RewardTerm, Scores

POLICY = PolicyConfig("tiny-scratch", lora=LoRA(rank=4))
SGD = partial(torch.optim.SGD, lr=1.0)
ADAMW = partial(torch.optim.AdamW, lr=1e-3)


class StripeSegmenter(nn.Module):
    """Masks that depend on the expression alone: stripes as wide as its text is long."""

    def segment(self, images, prompts):
        masks = []
        for image, texts in zip(images, prompts, strict=True):
            rows = torch.arange(image.shape[0])[:, None].expand(image.shape[:2])
            stripes = [rows // (len(text) + 1) % 2 == 0 for text in texts]
            masks.append(torch.stack(stripes) if stripes else torch.zeros(0, *image.shape[:2], dtype=torch.bool))
        return masks


class Letters(RewardTerm):
    """A number that depends on the text alone and differs between most random responses."""

    name = "letters"
    bounds = (0.0, 1.0)

    def forward(self, responses):
        return Scores(torch.tensor([len(set(item.text)) / 30 for item in responses]), (None,) * len(responses))


def cgpo(**options):
    torch.manual_seed(0)  # peft draws the adapters
    return CGPO(
        **{"policy": POLICY, "segmenter": StripeSegmenter(), "optimizer": ADAMW, "max_new_tokens": 8, **options}
    )


def sft(**options):
    torch.manual_seed(0)
    return SFT(**{"policy": POLICY, "segmenter": StripeSegmenter(), "optimizer": ADAMW, "max_new_tokens": 8, **options})


def scenes(**options):
    return ScenesDataModule(**{"batch_size": 6, "steps_per_epoch": 4, "annotated": 9, "val_size": 7, **options})


def trainer(folder, **options):
    return L.Trainer(
        **{
            "accelerator": "cpu",
            "default_root_dir": folder,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "limit_val_batches": 0,
            **options,
        }
    )


def trained(module):
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def assert_advantages_need_no_confidence_of_others(module):
    """To the bit, whatever the confidence in the other responses is, as in micro-batches of the first update."""
    count = 3 * module.responses_per_prompt
    rewards, confidence, others = torch.rand(3, count, generator=torch.Generator().manual_seed(0))
    module.all_reduce = lambda value, operation="sum": value  # of one process
    module.before_updates(rewards, confidence)
    expected = module.advantages(rewards, confidence)
    assert expected.unique().numel() > 1
    for row in range(count):
        known = others.clone()
        known[row] = confidence[row]
        assert module.advantages(rewards, known)[row].equal(expected[row])
