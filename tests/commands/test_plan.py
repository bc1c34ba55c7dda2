"""What a config would train, from the command line, with no weight on disk."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.cli import main as lightning
from lightning_sal.clients.endpoint import AskedModel
from lightning_sal.clients.endpoint_config import EndpointConfig
from lightning_sal.commands.plan import main
from lightning_sal.datasets import task_records
from lightning_sal.policy import gpus
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.gpus import GPU
from lightning_sal.policy.make import make_policy
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import get_task
from lightning_sal.tiny.policy import build_processor
from tests.annotation.server import Model, Server

VOCABULARY, HIDDEN, WIDE, LAYERS = 2000, 64, 160, 2
LAYER = (64 + 1) * 64 + 2 * (64 + 1) * 32 + 64 * 64 + 3 * 64 * 160 + 2 * 64  # 4 heads, 2 key heads, of 16 each
ADAPTERS = 8 * ((64 + 64) + 2 * (64 + 32) + (64 + 64) + 3 * (64 + 160))  # of rank 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with config.json and a processor, as the hub has them, but no weights."""
    folder = tmp_path_factory.mktemp("model")
    build_processor().save_pretrained(folder)
    config = {
        "model_type": "qwen2_5_vl",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": False,
        "vision_config": {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture
def plan(model, capsys):
    """Runs the command on that folder; what it printed, and the cells of its rows by the first of them."""

    def run(*options):
        policy = "--model.init_args.policy"
        given = ["--config", "conf/real/cosod.yaml", f"{policy}.model", model, f"{policy}.lora.rank", "8"]
        pixels = [f"{policy}.min_pixels", "3136", f"{policy}.max_pixels", "1003520"]
        assert main([*given, *pixels, *options]) == 0
        printed = capsys.readouterr().out
        return printed, cells(printed)

    return run


def cells(printed):
    """The cells of rows by the first of them; of rows of one name those of the first."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line[:1] == "│"]
    return {first: rest for first, *rest in reversed(rows)}


def seconds(printed):
    return cells(printed.partition("Seconds of a step")[2])


def test_parameters_by_hand(plan):
    _, rows = plan()
    assert rows["adapters"] == [f"{LAYERS * ADAPTERS:,}", "0"]
    assert rows["language model"] == ["0", f"{LAYERS * LAYER + 2 * VOCABULARY * HIDDEN + HIDDEN:,}"]


def test_tokens_by_hand(plan):
    """1024 x 768 pixels become 37 x 27 squares of 28 pixels, and 1003520 pixels are 1280 squares."""
    _, rows = plan("--model.init_args.policy.max_prompt_tokens", "10000", "--data.init_args.group_size", "8")
    assert rows["sod"][:2] == ["1", "999"]
    assert rows["cosod"][:2] == ["8", "7,992"]
    text = int(rows["cosod"][2].replace(",", "")) - 7992
    assert rows["cosod"][3] == f"{8 * 1280 + text:,} refused"
    assert plan("--image-size", "560x280")[1]["sod"][1] == "200"


def test_memory_is_of_the_longest_prompts_that_are_not_refused(plan):
    """AdamW has two moments of 4 bytes for each trainable parameter, in all six columns."""
    shown, rows = plan("--model.init_args.policy.max_prompt_tokens", "1500", "--image-size", "280x280")
    assert "4 cosod prompts" in shown
    shown, rows = plan("--model.init_args.policy.max_prompt_tokens", "800", "--image-size", "280x280")
    assert "4 perception prompts" in shown
    assert rows["cosod"][2].endswith("refused")
    assert rows["AdamW states"] == [f"{2 * 4 * LAYERS * ADAPTERS / 1e6:.2f}"] * 6
    peaks = [float(cell) for cell in rows["peak"]]
    assert peaks[0] <= peaks[2] < peaks[4]
    assert all(on <= off for off, on in zip(peaks[::2], peaks[1::2], strict=True))
    assert "No prompt of such images fits" in plan("--model.init_args.policy.max_prompt_tokens", "100")[0]


def test_seconds_by_hand(plan):
    """AdamW and clipping read or write each of the trained bytes ten times; arithmetic takes no time here."""
    shown, _ = plan("--tflops", "1e9", "--bandwidth", "1e-6")
    assert "not measured" in shown
    assert "40% of the FLOP/s" in shown
    rows, optimiser = seconds(shown), 10 * 4 * LAYERS * ADAPTERS / 0.7e6
    assert rows["optimiser"] == [f"{optimiser:.3g}"] * 3
    sft, cgpo, grpo = (float(cell) for cell in rows["all"])
    assert optimiser < sft < cgpo <= grpo


def test_seconds_on_each_gpu_that_is_known(plan, monkeypatch):
    before = seconds(plan()[0])
    assert 0 < float(before["H200"][2]) < float(before["RTX-4090"][2])
    monkeypatch.setitem(gpus.GPUS, "H200", GPU(989, 4.8, 1e-6))
    assert seconds(plan()[0])["H200"] == [f"({cell}) does not fit" for cell in before["H200"]]
    assert "read prompts" in seconds(plan("--gpu", "H200")[0])


def test_a_config_that_trains_no_policy_is_refused(capsys):
    assert lightning(["plan", "--config", "conf/tiny/segmenter.yaml"]) == 1
    assert "has no policy" in capsys.readouterr().err


def test_mistakes_are_answered_by_one_line(capsys):
    assert lightning(["plan", "--config", "conf/quickstart.yaml", "--image-size", "big"]) == 1
    assert "--image-size big: give width x height in pixels" in capsys.readouterr().err
    for given, answer in (
        (["--gpu", "H201"], "--gpu H201: give one of B200, H200"),
        (["--tflops", "100"], "give both, or --gpu"),
        (["--tflops", "0", "--bandwidth", "1"], "must be above 0"),
        (["--gpu", "H200", "--tflops", "1", "--bandwidth", "1"], "drop it, or drop these"),
    ):
        assert lightning(["plan", "--config", "conf/quickstart.yaml", *given]) == 1
        assert answer in capsys.readouterr().err
    assert lightning(["plan", "--config", "conf/quickstart.yaml", "--model.init_args.colour", "red"]) == 2
    assert "colour: unknown key" in capsys.readouterr().err


def test_the_recipe_is_planned_before_the_model_that_it_starts_from_is_there(model, capsys):
    assert main(["--config", "conf/cgpo.yaml", "--paths.policy", model]) == 0
    printed = capsys.readouterr().out
    assert "".join(printed.split()).startswith(f"runs/sft/modelisnotthereyet:sizesarethoseof{model}.")
    assert "GRPO, G = 8" in printed


# A model behind an endpoint


@pytest.fixture
def endpoint(tmp_path, monkeypatch, capsys):
    """Runs the command on three photographs and a model behind an endpoint; what it printed, and its rows."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        save(tmp_path / f"data/ECSSD/images/{number}.png", np.full((30, 40, 3), 5 * number, np.uint8))
        save(tmp_path / f"data/ECSSD/masks/{number}.png", np.full((30, 40), 255, np.uint8))

    def run(*options, data="ecssd"):
        policy = "--model.init_args.policy"
        given = ["--config", f"conf/eval/{data}.yaml", "--config", "conf/eval/endpoint.yaml", f"{policy}.model", "m"]
        given += [f"{policy}.longest_side", "480", "--model.init_args.max_new_tokens", "1000"]
        assert main([*given, *options]) == 0
        printed = capsys.readouterr().out
        return " ".join(printed.split()), cells(printed)

    return run


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_tokens_price_and_time_of_an_endpoint_by_hand(endpoint):
    """An image of 480 x 480 pixels counts as 1,200 tokens at most, 800 as a rule; a byte of text as one, four as a rule."""
    text = len(get_task("sod").instruction.encode())
    prices = ["--model.init_args.policy.input_price", "100", "--model.init_args.policy.output_price", "1000"]
    printed, rows = endpoint(*prices, "--model.init_args.policy.budget", "3")
    assert "3 of 3 samples to ask for, 3 images" in printed
    read, most = 3 * (800 + text // 4), 3 * (1200 + text + 32)
    assert rows["input tokens"] == [f"{read:,}", f"{most:,}"]
    assert rows["output tokens"] == ["1,200", "3,000"]
    assert rows["cost"] == [f"${read / 1e4 + 1.2:.2f}", f"${most / 1e4 + 3:.2f}"]
    assert "policy.budget $3 may end the run before its time" in printed
    assert endpoint("--model.init_args.policy.per_minute", "0.1")[1]["time"] == ["30 min", "30 min"]


def test_samples_need_not_be_there(endpoint):
    options = ["--samples", "100", "--data.init_args.group_size", "5"]
    printed, rows = endpoint(*options, data="all")
    assert "300 of 300 samples to ask for, 700 images" in printed  # 100 each of SOD, SIS and, of five images, CoSOD
    assert rows["output tokens"] == ["120,000", "300,000"]
    assert "cost" not in rows
    assert "100 of 100 samples to ask for, 500 images" in endpoint(*options, "--task", "cosod", data="all")[0]


def test_what_is_kept_is_not_asked_for_again(endpoint, tmp_path, monkeypatch):
    groups = [record.read() for record in task_records(get_task("sod"), tmp_path / "data/ECSSD")]
    with Server(Model()) as server:
        config = EndpointConfig("m", f"{server.url}/v1", longest_side=480)
        model = AskedModel(config, 1000)
        model.ask(groups[:2], [get_task("sod").messages(group) for group in groups[:2]])
        model.close()
        at = ["--model.init_args.policy.base_url", config.base_url]
        printed, rows = endpoint(*at)
        assert "1 of 3 samples to ask for, 1 images; the answers to 2 are kept already" in printed
        assert rows["output tokens"] == ["400", "1,000"]
        assert "3 of 3 samples" in endpoint(*at, "--model.init_args.policy.temperature", "1")[0]
        assert len(server.log) == 2


def test_samples_are_of_endpoints_alone(capsys):
    assert lightning(["plan", "--config", "conf/quickstart.yaml", "--samples", "9"]) == 2
    assert "--samples counts what a model behind an endpoint is asked" in capsys.readouterr().err


def test_a_model_of_any_family_is_planned(family_folder, capsys):
    """Against the model itself: its parameters and its prompts."""
    policy = "--model.init_args.policy"
    given = ["--config", "conf/real/cosod.yaml", f"{policy}.model", str(family_folder), f"{policy}.lora.rank", "8"]
    batch = ["--data.init_args.group_size", "2", "--data.init_args.batch_size", "3", "--image-size", "160x80"]
    assert main([*given, *batch, "--task", "cosod", "--task", "sod", "--responses", "2"]) == 0
    rows = cells(capsys.readouterr().out)
    found = make_policy(PolicyConfig(str(family_folder), lora=LoRA(rank=8)))
    trained, all_ = (sum(p.numel() for p in found.parameters() if p.requires_grad >= least) for least in (1, 0))
    assert rows["adapters"][0] == f"{trained:,}"
    assert rows["all"] == [f"{trained:,}", f"{all_ - trained:,}"]
    assert rows["AdamW states"] == [f"{2 * 4 * trained / 1e6:.2f}"] * 3
    images = (torch.zeros(80, 160, 3, dtype=torch.uint8),) * 2
    prompts = found.encode([ImageGroup("", "cosod", images)] * 3)
    assert rows["cosod"][2] == str(prompts.lengths[0])
    visual = (prompts.ids[0] == found.model.config.image_token_id).sum()
    assert rows["cosod"][1] == str(int(visual))


def test_prompts_of_an_rl_step_are_counted_apart_from_those_of_sft(plan):
    """The columns of CGPO are those of a larger batch, and those of SFT stay."""
    same, small = plan("--data.init_args.batch_size", "2")
    apart, both = plan("--data.init_args.batch_size", "2", "--data.init_args.rl_batch_size", "6")
    _, large = plan("--data.init_args.batch_size", "6")
    assert "in an SFT step" not in same
    assert "prompts (2 in an SFT step)" in " ".join(apart.split())
    assert both["backward"] == [*small["backward"][:2], *large["backward"][2:]]
