"""Trained policies as plain folders: they say what the policy said, and their weights are rounded once."""

import json
import shutil
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_sal.cli import main
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.tasks import TASKS
from lightning_sal.tiny.scenes import scene_group
from lightning_sal.tiny.weights import EMBEDDED_POLICIES
from tests.modules.parts import scenes, sft, trainer

RANK, ALPHA = 4, 8.0
TINY = PolicyConfig("tiny", lora=LoRA(rank=RANK, alpha=ALPHA))
CONFIG = """\
trainer:
  max_steps: 2
  accelerator: cpu
  logger: false
  default_root_dir: {folder}
  enable_progress_bar: false
  enable_model_summary: false
  limit_val_batches: 0
  callbacks:
    - class_path: lightning_sal.callbacks.SaveAdapter
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{dirpath: {folder}, filename: trained, every_n_train_steps: 2}}
model:
  class_path: lightning_sal.modules.SFT
  init_args:
    policy: {{model: tiny, lora: {{rank: 4, alpha: 8}}}}
    optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 1e-2}}}}
data:
  class_path: lightning_sal.datamodules.ScenesDataModule
  init_args: {{batch_size: 2, steps_per_epoch: 4, annotated: 9, streams: [sft]}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training with adapters from the command line: its checkpoint, adapters, and config."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.yaml").write_text(textwrap.dedent(CONFIG.format(folder=folder)))
    assert main(["fit", "--config", str(folder / "run.yaml")]) == 0
    return SimpleNamespace(
        checkpoint=folder / "trained.ckpt", adapter=folder / "trained.adapter", config=folder / "config.yaml"
    )


def export(*argv):
    return main(["export", *map(str, argv)])


def log_probs(policy):
    groups = [scene_group(0, task, 3) for task in ("sod", "cosod")]
    policy.eval()
    with torch.no_grad():
        return policy.score(policy.encode(groups), *policy.encode_responses([group.response for group in groups]))


def trained(checkpoint, config=TINY):
    policy = FastPolicy(config)
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    policy.load_state_dict({name.removeprefix("policy."): weight for name, weight in weights.items()}, strict=False)
    return policy


def test_an_export_says_what_the_adapted_policy_says_whichever_it_is_made_from(run, tmp_path, capsys):
    one, two, three = tmp_path / "one", tmp_path / "deep" / "two", tmp_path / "three"
    assert export(run.adapter, "--model", "tiny", "--out", one, "--dtype", "float32") == 0
    assert export(run.checkpoint, "--config", run.config, "--out", two, "--dtype", "float32") == 0
    assert export(run.checkpoint, "--out", three, "--dtype", "float32") == 0
    expected = log_probs(trained(run.checkpoint))
    for folder in (one, two, three):
        torch.testing.assert_close(log_probs(FastPolicy(PolicyConfig(str(folder)))), expected, atol=1e-5, rtol=0)
    assert (expected - log_probs(FastPolicy(PolicyConfig("tiny")))).abs().max() > 1e-2
    first, second = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    assert all(torch.equal(first[name], weight) for name, weight in second.items())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_folder_is_one_of_transformers_and_its_logits_are_those_of_peft(run, tmp_path):
    from peft import PeftModel
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    assert export(run.adapter, "--out", tmp_path / "out", "--dtype", "float32") == 0
    source = EMBEDDED_POLICIES["tiny"]
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "out", dtype="auto")
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        wanted = PeftModel.from_pretrained(base, run.adapter)(input_ids=ids).logits
        torch.testing.assert_close(model(input_ids=ids).logits, wanted, atol=1e-5, rtol=0)
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == base.generation_config.eos_token_id
    text = "<think>a red circle</think>"
    ours, theirs = AutoProcessor.from_pretrained(tmp_path / "out"), AutoProcessor.from_pretrained(source)
    assert ours.tokenizer(text)["input_ids"] == theirs.tokenizer(text)["input_ids"]
    assert ours.chat_template == theirs.chat_template
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == set(load_file(source / "model.safetensors"))


def test_in_bfloat16_each_weight_is_rounded_once(run, tmp_path):
    """W + alpha / rank B A by hand, in float64 from the files; to round the base and the update first gives others."""
    assert export(run.adapter, "--out", tmp_path / "out") == 0
    out, base = (load_file(f / "model.safetensors") for f in (tmp_path / "out", EMBEDDED_POLICIES["tiny"]))
    adapters = load_file(run.adapter / "adapter_model.safetensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {part["dtype"] for part in (config, config["text_config"], config["vision_config"])} == {"bfloat16"}
    differing = 0
    for name, weight in base.items():
        assert out[name].dtype == torch.bfloat16
        layer = name.replace("model.", "base_model.model.model.language_model.", 1).removesuffix(".weight")
        if f"{layer}.lora_A.weight" not in adapters:
            assert torch.equal(out[name], weight.bfloat16()), name
            continue
        update = (
            ALPHA / RANK * adapters[f"{layer}.lora_B.weight"].double() @ adapters[f"{layer}.lora_A.weight"].double()
        )
        once = (weight.double() + update).float().bfloat16()
        twice = weight.bfloat16() + update.float().bfloat16()
        # float32 sums differ from float64 ones in the last digit, which moves a number over a border of bfloat16 now
        # and then, and not in one of a thousand
        assert (out[name] != once).float().mean() < 1e-3, name
        differing += int((twice != once).float().mean() > 0.05)
    assert differing == 3 * 7


@pytest.mark.parametrize("train_vision", [False, True])
def test_a_checkpoint_of_full_training_needs_no_config(train_vision, tmp_path):
    config = PolicyConfig("tiny", train_vision=train_vision)
    run = trainer(tmp_path, max_steps=1)
    run.fit(sft(policy=config), datamodule=scenes(streams=["sft"], batch_size=2))
    run.save_checkpoint(tmp_path / "full.ckpt")
    assert export(tmp_path / "full.ckpt", "--out", tmp_path / "out", "--dtype", "float32") == 0
    expected = log_probs(trained(tmp_path / "full.ckpt", config))
    torch.testing.assert_close(log_probs(FastPolicy(PolicyConfig(str(tmp_path / "out")))), expected, atol=1e-6, rtol=0)
    assert (expected - log_probs(FastPolicy(PolicyConfig("tiny")))).abs().max() > 1e-2


def test_the_instructions_that_it_was_trained_on_stand_in_the_folder(run, tmp_path):
    """Those of the base model, and of this package where the base model has none."""
    base = tmp_path / "base"
    shutil.copytree(EMBEDDED_POLICIES["tiny"], base)
    instructions = json.loads((base / "instructions.json").read_text())
    del instructions["sis"]
    (base / "instructions.json").write_text(json.dumps({**instructions, "sod": "What is there?"}))
    assert export(run.adapter, "--model", base, "--out", tmp_path / "out") == 0
    stated = json.loads((tmp_path / "out" / "instructions.json").read_text())
    assert (stated["sod"], stated["sis"]) == ("What is there?", TASKS["sis"].instruction)
    assert (
        FastPolicy(PolicyConfig(str(tmp_path / "out"))).instructions == FastPolicy(PolicyConfig(str(base))).instructions
    )


def spoilt_adapter(run, folder, change):
    """A copy of the adapters whose weights, by name, are changed in place."""
    shutil.copytree(run.adapter, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    change(weights)
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def renamed(old, new):
    def change(weights):
        for name in [*weights]:
            weights[name.replace(old, new)] = weights.pop(name)

    return change


def halved(weights):
    weights.update({name: weight[: len(weight) // 2].clone() for name, weight in weights.items()})


FIRST = "base_model.model.model.language_model.layers.0.mlp.down_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop(FIRST), f"1 weights are missing from it (first: ['{FIRST}']), 0 have no place"),
        (
            lambda weights: weights.update(odd=torch.zeros(1)),
            "0 weights are missing from it (first: []), 1 have no place",
        ),
        (halved, "lora_A.weight is (2, "),
        (
            renamed(".language_model.layers.", ".layers."),
            "has layers named model.layers, and its base model has model.language_model.layers, model.visual.blocks",
        ),
        (lambda weights: weights[FIRST].fill_(float("nan")), "down_proj.weight is not finite in torch.bfloat16"),
    ],
)
def test_adapters_that_do_not_fit_are_one_line(change, message, run, tmp_path, capsys):
    folder = spoilt_adapter(run, tmp_path / "spoilt", change)
    assert export(folder, "--out", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spoilt"]


def test_another_naming_of_layers_is_told_for_checkpoints_too(run, tmp_path, capsys):
    content = torch.load(run.checkpoint, weights_only=True)
    renamed(".language_model.layers.", ".layers.")(content["state_dict"])
    torch.save(content, tmp_path / "older.ckpt")
    assert export(tmp_path / "older.ckpt", "--config", run.config, "--out", tmp_path / "out") == 1
    assert "older.ckpt has layers named model.layers, and its base" in capsys.readouterr().err


def test_a_checkpoint_with_another_rank_than_the_config_is_one_line(run, tmp_path, capsys):
    (tmp_path / "other.yaml").write_text(run.config.read_text().replace("rank: 4", "rank: 2"))
    assert export(run.checkpoint, "--config", tmp_path / "other.yaml", "--out", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "is (4, 128), and in the model (2, 128)" in line


class Code:
    """What would run if a file were trusted."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"PK", "is not a checkpoint of tensors and plain values, or only the beginning of one"),
        ({"state_dict": {"policy.net.a": torch.zeros(1)}, "more": Code()}, "holds more than tensors and plain values"),
        ({"weights": {}}, "holds no state_dict"),
        ({"state_dict": {"segmenter.a": torch.zeros(1)}}, "holds segmenter.a, which is no part of a policy"),
        ({"state_dict": {"policy.net.a.lora_A": torch.zeros(1)}}, "give --config, the config.yaml of the run"),
        ({"state_dict": {"policy.net.a": torch.zeros(1)}}, "does not say what its base model is: give --model"),
    ],
)
def test_files_that_are_none_are_refused_by_one_line(content, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if isinstance(content, bytes):
        Path("a.ckpt").write_bytes(content)
    elif content is not None:
        torch.save(content, "a.ckpt")
    assert export("a.ckpt", "--out", "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("ran").exists()


def test_folders_without_adapters_are_refused_by_one_line(tmp_path, capsys):
    (tmp_path / "deepspeed.ckpt").mkdir()
    assert export(tmp_path / "deepspeed.ckpt", "--out", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds no adapter_config.json" in line
    assert "DeepSpeed" in line


def test_adapters_on_the_prompt_are_refused_by_one_line(run, tmp_path, capsys):
    folder = tmp_path / "prompt"
    shutil.copytree(run.adapter, folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}))
    assert export(folder, "--out", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "PROMPT_TUNING adds to the prompt and cannot be merged" in line


def test_a_config_without_a_policy_is_refused_by_one_line(run, tmp_path, capsys):
    for number, text in enumerate(("model: {}", "[]", "model: {init_args: {policy: {modle: tiny}}}")):
        (tmp_path / f"{number}.yaml").write_text(text)
        assert export(run.checkpoint, "--config", tmp_path / f"{number}.yaml", "--out", tmp_path / "out") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{number}.yaml: " in line


def test_a_folder_that_holds_anything_is_left_alone(run, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"mine")
    assert export(run.adapter, "--out", out) == 1
    assert "is there already and is not overwritten" in capsys.readouterr().err
    assert [path.read_bytes() for path in out.iterdir()] == [b"mine"]
    (out / "model.safetensors").unlink()
    assert export(run.adapter, "--out", out) == 0  # an empty one is taken
    assert (out / "config.json").is_file()
