"""A policy in shards against the whole one: the same weights, in a share of the memory."""

import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file, save_file
from torch.distributed import init_process_group
from torch.distributed.device_mesh import init_device_mesh

from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.policy import Policy
from lightning_sal.policy.sharding import ShardedPolicy
from lightning_sal.tiny.policy import scratch_policy
from lightning_sal.tiny.scenes import scene_group
from tests.distributed.processes import in_processes
from tests.distributed.test_rl_ddp import whole

CASES = {
    "adapters": (PolicyConfig("tiny", lora=LoRA(rank=2)), "float32"),
    "all weights": (PolicyConfig("tiny", train_vision=True), "bfloat16"),
    "adapters and vision": (PolicyConfig("tiny", lora=LoRA(rank=2), train_vision=True), "bfloat16"),
}
STEPS = 6


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder of 20 million weights in float32: 80 MB, of which the largest block is a twelfth."""
    model, processor, _ = scratch_policy()
    text = model.config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 512, 2048, 5
    text.num_attention_heads, text.layer_types = 16, ["full_attention"] * 5
    model.config.vision_config.out_hidden_size = 512
    folder = tmp_path_factory.mktemp("large")
    type(model)(model.config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@contextmanager
def growth():
    """By how many bytes at most the memory that this process shares with none has grown inside, in a list."""
    found, over = [], threading.Event()

    def own():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    def watch():
        while not over.wait(0.001):
            seen.append(own())

    seen = [own()]
    thread = threading.Thread(target=watch)
    thread.start()
    yield found
    over.set()
    thread.join()
    found.append(max(*seen, own()) - seen[0])


def work(world_size, rank, folder, large):
    init_process_group("gloo")
    mesh = init_device_mesh("cpu", (world_size,))
    group = scene_group(3, "sod", 0)
    for name, (config, dtype) in CASES.items():
        config = replace(config, dtype=dtype)
        torch.manual_seed(0)
        sharded = ShardedPolicy(config, mesh)
        torch.manual_seed(0)
        plain = Policy(config)
        expected = dict(plain.named_parameters())
        assert [n for n, _ in sharded.named_parameters()] == list(expected)
        for key, weight in sharded.named_parameters():
            assert weight.dtype == expected[key].dtype, key
            assert weight.requires_grad == expected[key].requires_grad, key
            if "lora_A" in key and dtype != "float32":
                continue  # peft draws it in the dtype of the weight, which is that of the file until it is cut up
            torch.testing.assert_close(whole(weight), expected[key].data, atol=0, rtol=0, msg=f"{name}, {key}")
        rollouts = [policy.sample(policy.encode([group]), STEPS, temperature=0) for policy in (plain, sharded)]
        assert rollouts[0].texts == rollouts[1].texts
    sizes = {}
    for dtype in ("bfloat16", "float32"):  # another one than in the file, and the same
        for kind, load in (("whole", Policy), ("shards", lambda config: ShardedPolicy(config, mesh))):
            with growth() as found:
                policy = load(PolicyConfig(str(large), dtype=dtype))
            sizes[kind, dtype] = found[0] / sum(p.numel() * p.element_size() for p in policy.parameters())
            del policy
    torch.save(sizes, folder / f"sizes-{rank}.pt")


def test_sizes(tmp_path, large):
    in_processes(work, (2,), tmp_path, large)
    for rank in range(2):
        print(torch.load(tmp_path / f"sizes-{rank}.pt", weights_only=True))
