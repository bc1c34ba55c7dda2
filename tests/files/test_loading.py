"""Files of others: whatever is wrong with one, a single line names it, and nothing in it is run or believed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_sal.files.loading import built_from, read_tensors, refuse_non_finite
from lightning_sal.files.reading import read_object
from lightning_sal.inference.predictor import Predictor, find_device, load_policy
from lightning_sal.inference.responses import Prediction
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.export import read_adapter
from lightning_sal.policy.loading import load_model
from lightning_sal.samples import ImageGroup
from lightning_sal.segmenters import EVFSAM2
from lightning_sal.tasks import Expressions
from lightning_sal.tiny.weights import WEIGHTS


class Code:
    """What would run if a file were trusted."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def refused(call, *arguments, names):
    """The one line that a call ends with, which names `names`."""
    with pytest.raises((ValueError, OSError)) as error:
        call(*arguments)
    line = str(error.value)
    assert "\n" not in line
    assert str(names) in line
    return line


@pytest.mark.parametrize("content", [b"{oops", b"[1]", b"3", b"\xff\xfe\x00", b"", b"[" * 100_000])
def test_json_that_is_no_object_is_refused(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    refused(read_object, path, names=path)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_checkpoint_is_read_whole_or_not_at_all(mmap, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.ckpt"
    torch.save({"weights": torch.arange(5000.0)}, path)
    assert read_tensors(path, mmap=mmap)["weights"][-1] == 4999
    whole = path.read_bytes()
    at = whole.index(torch.arange(2000.0, 2010.0).numpy().tobytes())
    path.write_bytes(whole[:at] + bytes(40) + whole[at + 40 :])
    assert "damaged" in refused(lambda: read_tensors(path, mmap=mmap), names=path)
    for content in (whole[: len(whole) // 2], b"", b"hello\n" * 50):
        path.write_bytes(content)
        refused(lambda: read_tensors(path, mmap=mmap), names=path)
    torch.save({"weights": torch.zeros(1), "more": Code()}, path)
    assert "more than tensors" in refused(lambda: read_tensors(path, mmap=mmap), names=path)
    assert not Path("ran").exists()


def test_what_a_library_raises_names_what_it_was_given():
    for error in (TypeError("a\n  b"), KeyError("x"), ZeroDivisionError("by zero"), RuntimeError("c")):
        with (
            pytest.raises(
                ValueError, match=rf"^folder/config\.json cannot be built: {type(error).__name__}: "
            ) as raised,
            built_from("folder/config.json"),
        ):
            raise error
        assert raised.value.__cause__ is error
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(value):
    weights = {
        "fine": torch.ones(3),
        "ids": torch.tensor([1]),
        "none": torch.empty(0),
        "odd": torch.tensor([0.0, value]),
    }
    assert "odd" in refused(refuse_non_finite, weights, "a.ckpt", names="a.ckpt")
    refuse_non_finite({name: weights[name] for name in ("fine", "ids", "none")}, "a.ckpt")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(**values):
    def changed(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return changed


def weights(do):
    def changed(path):
        state = load_file(path)
        do(state)
        save_file(state, path, {"format": "pt"})

    return changed


def spoil(state):
    state[min(name for name in state if name.endswith("weight"))].fill_(float("nan"))


def lose(state):
    del state[min(name for name in state if name.endswith("layers.0.mlp.up_proj.weight"))]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", cut),
        ("model.safetensors", weights(spoil)),
        ("model.safetensors", weights(lose)),
        ("config.json", cut),
        ("config.json", change(model_type="zzz")),
        ("config.json", change(text_config=[1])),
        ("tokenizer.json", cut),
        ("chat_template.jinja", Path.unlink),
        ("chat_template.jinja", lambda path: path.write_text("{% if %}")),
        ("tokenizer.json", Path.unlink),
        ("instructions.json", change(sod=1)),
    ],
)
def test_a_damaged_policy_is_one_line(name, damage, tmp_path):
    folder = tmp_path / "policy"
    shutil.copytree(WEIGHTS / "policy", folder)
    damage(folder / name)
    refused(load_model, PolicyConfig(str(folder)), names=folder)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", cut),
        ("model.safetensors", weights(spoil)),
        ("config.json", cut),
        ("config.json", change(zzz=1)),
        ("config.json", change(hidden_size="wide")),
        ("config.json", change(beit3=[1])),
        ("config.json", change(max_batch=0)),
        ("tokenizer.json", cut),
        ("model.safetensors.index.json", lambda path: path.write_text('{"weight_map": 3}')),
    ],
)
def test_a_damaged_segmenter_is_one_line(name, damage, tmp_path):
    folder = tmp_path / "segmenter"
    shutil.copytree(WEIGHTS / "segmenter", folder)
    damage(folder / name)
    refused(EVFSAM2.from_pretrained, folder, names=folder)


@pytest.mark.parametrize("values", [{"peft_type": "ZZZ"}, {"peft_type": None}, {"base_model_name_or_path": 3}])
def test_odd_adapters_are_one_line(values, tmp_path):
    stated = {"peft_type": "LORA", "base_model_name_or_path": "tiny", "target_modules": ["q_proj"], "r": 2}
    (tmp_path / "adapter_config.json").write_text(json.dumps(stated | values))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut")
    refused(read_adapter, tmp_path, names=tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(stated))
    refused(read_adapter, tmp_path, names=tmp_path / "adapter_model.safetensors")


@pytest.mark.parametrize(
    "policy", ["x", [1], {}, {"zzz": 1}, {"model": 3}, {"lora": {"rank": "x"}}, {"max_pixels": "x"}]
)
def test_odd_settings_in_a_checkpoint_are_one_line(policy, tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"policy.net.a": torch.zeros(1)}, "policy": policy}, path)
    refused(load_policy, str(path), {}, names=path)


@pytest.mark.parametrize("device", ["meta", "zzz", *(["cuda"] if not torch.cuda.is_available() else [])])
def test_a_device_that_is_not_here_is_one_line(device):
    refused(lambda: Predictor.load(device=device), names=device)
    assert find_device("cpu") == "cpu"


def test_there_is_no_prediction_of_nan():
    group = ImageGroup("a scene", "sod", (torch.zeros(4, 4, 3, dtype=torch.uint8),))
    refused(Prediction, group, "", Expressions(), (), float("nan"), names="a scene")
