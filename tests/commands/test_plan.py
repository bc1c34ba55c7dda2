"""What a config would train, from the command line, with no weight on disk."""

import json

import pytest

from lightning_sal.cli import main as lightning
from lightning_sal.commands.plan import main
from lightning_sal.policy import gpus
from lightning_sal.policy.gpus import GPU
from lightning_sal.tiny.policy import build_processor

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
