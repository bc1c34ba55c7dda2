"""A policy in shards against the whole one: the same weights, in a share of the memory."""

import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed import init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.sharding import ShardedPolicy
from lightning_sal.tiny.policy import scratch_policy
from lightning_sal.tiny.scenes import scene_group
from lightning_sal.tiny.weights import EMBEDDED_POLICIES
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
    """A folder of 33 million weights in float32, 130 MB, of which a block is a ninth."""
    model, processor, _ = scratch_policy()
    text = model.config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 512, 2048, 8
    text.num_attention_heads, text.layer_types = 16, ["full_attention"] * 8
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


class Gatherings(TorchDispatchMode):
    """Counts them."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "allgather" in str(func)
        return func(*args, **(kwargs or {}))


def line_of(load, *args):
    """What is said of a model that is refused."""
    with pytest.raises(ValueError, match="model") as caught:
        load(*args)
    return str(caught.value)


def compared(config, dtype, mesh):
    """Names of weights that differ from those of a whole policy, and texts of both."""
    policies = []
    for load in (FastPolicy, lambda config: ShardedPolicy(config, mesh)):
        torch.manual_seed(0)
        policies.append(load(replace(config, dtype=dtype)))
    pairs = zip(*(policy.named_parameters() for policy in policies), strict=True)
    differing = [
        name
        for (name, expected), (found_name, found) in pairs
        if name != found_name
        or (found.dtype, found.requires_grad) != (expected.dtype, expected.requires_grad)
        # peft draws adapters in the dtype of the weight, which is that of the file until it is cut up
        or (not whole(found).equal(expected.detach()) and (dtype == "float32" or "lora_A" not in name))
    ]
    texts = [p.sample(p.encode([scene_group(3, "sod", 0)]), STEPS, temperature=0).texts for p in policies]
    return {"differing": differing, "texts": texts}


def sampled(mesh):
    """What sampling with shards asks of the other rank and of hooks, and what it leaves."""
    policy, calls = ShardedPolicy(PolicyConfig("tiny"), mesh), []
    prompts = policy.encode([scene_group(3, "sod", 0)])
    policy.backbone.language_model.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    counts = []
    for steps in (2, STEPS):
        with Gatherings() as gatherings:
            rollout = policy.sample(prompts, steps, temperature=0)
        counts.append(gatherings.count)
    left = [name for name, weight in policy.backbone.language_model.named_parameters() if type(weight) is nn.Parameter]
    return {
        "layers": len(policy.backbone.language_model.layers),
        "gatherings": counts,
        "hooks": len(calls),
        "left whole": left,
        "streamed": list(policy.stream(prompts, STEPS)),
        "text": rollout.texts[0],
        "logp": policy.score(prompts, rollout.tokens, rollout.mask) - rollout.logp,
    }


def sizes(folder, mesh):
    """The most memory of its own that loading took, as a share of the weights."""
    found = {}
    for dtype in ("bfloat16", "float32"):  # another one than in the file, and the same
        for kind, load in (("whole", FastPolicy), ("shards", lambda config: ShardedPolicy(config, mesh))):
            with growth() as grown:
                policy = load(PolicyConfig(str(folder), dtype=dtype))
            found[f"{kind} {dtype}"] = grown[0] / sum(p.numel() * p.element_size() for p in policy.parameters())
            del policy
    return found


def work(world_size, rank, folder, large, faulty):
    init_process_group("gloo")
    mesh = init_device_mesh("cpu", (world_size,))
    config = PolicyConfig(str(faulty), lora=LoRA(rank=2))
    found = {
        "lines": [line_of(FastPolicy, config), line_of(ShardedPolicy, config, mesh)],
        "compared": {name: compared(*case, mesh) for name, case in CASES.items()},
        "sampled": sampled(mesh),
        "sizes": sizes(large, mesh),  # at last, when what libraries keep is there
    }
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory, large):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    faulty = folder / "faulty"
    shutil.copytree(EMBEDDED_POLICIES["tiny"], faulty)
    weights = load_file(faulty / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    weights[name][-1] = torch.nan  # of the second process
    save_file(weights, faulty / "model.safetensors", {"format": "pt"})
    in_processes(work, (2,), folder, large, faulty)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_shards_are_those_of_the_whole_policy(name, found):
    for rank in found:
        assert rank["compared"][name]["differing"] == []
        plain, sharded = rank["compared"][name]["texts"]
        assert plain == sharded


def test_a_process_holds_its_share_and_one_block_beside_what_is_in_files(found):
    for rank in found:
        sizes = rank["sizes"]
        assert sizes["whole bfloat16"] > 0.8  # so what is measured are weights
        assert sizes["whole float32"] < 0.1
        assert sizes["shards bfloat16"] < 0.75  # half, a ninth, and what is left over
        assert sizes["shards float32"] < 0.6


def test_all_processes_refuse_what_one_of_them_finds(found):
    for rank in found:
        plain, sharded = rank["lines"]
        assert "holds NaN or infinity" in plain
        assert "layers.1.mlp.up_proj" in plain
        assert sharded == found[0]["lines"][1]
        assert "layers.1.mlp.up_proj" in sharded
        assert sharded.startswith(plain.partition(": ")[0])


def test_sampling_gathers_each_layer_once_and_calls_no_hook(found):
    for rank in found:
        sampled = rank["sampled"]
        assert sampled["gatherings"] == [sampled["layers"] + 1] * 2  # and the rest, whatever the length
        assert sampled["hooks"] == 0
        assert sampled["left whole"] == []


def test_a_stream_comes_in_one_piece(found):
    for rank in found:
        assert rank["sampled"]["streamed"] == [rank["sampled"]["text"]]


def test_what_is_sampled_scores_as_it_was_sampled(found):
    for rank in found:
        assert float(rank["sampled"]["logp"].abs().max()) < 1e-4
