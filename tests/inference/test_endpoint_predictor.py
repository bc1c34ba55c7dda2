"""From photographs to masks by a model behind an endpoint, which a server on loopback plays."""

import socket
import subprocess
import sys

import pytest
import torch

from lightning_sal import Predictor, load_predictor
from lightning_sal.clients.endpoint import AskedModel
from lightning_sal.clients.endpoint_config import EndpointConfig
from lightning_sal.errors import UsageError
from lightning_sal.inference.endpoint import EndpointPredictor
from lightning_sal.samples import ImageGroup
from tests.annotation.parts import HEIGHT, WIDTH, photograph, save
from tests.annotation.server import INPUT, OUTPUT, Model, Server

KEY = "sk-very-secret-0123456789"
SAID = "<think>A square.</think><answer><rg>the yellow square</rg></answer>"
FAST = {"retries": 1, "backoff": 0.01, "timeout": 2.0}


class Halves:
    """Finds the left half for any words, and remembers them."""

    def __init__(self):
        self.asked = []

    def segment(self, images, prompts):
        self.asked += prompts
        masks = [torch.zeros(len(each), *image.shape[:2]) for image, each in zip(images, prompts, strict=True)]
        for mask in masks:
            mask[:, :, : WIDTH // 2] = 1
        return [mask.bool() for mask in masks]


@pytest.fixture(autouse=True)
def _keys(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where answers are kept
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)


def group(*numbers, task="sod"):
    images = tuple(torch.from_numpy(photograph(number)) for number in numbers)
    names = tuple(f"{number}.png" for number in numbers)
    return ImageGroup(names[0], task, images, paths=names)


def predictor(server, model="openai:m", limit=77, **settings):
    asked = AskedModel(EndpointConfig(model, server.url, **FAST | settings), limit)
    return EndpointPredictor(asked, Halves())


@pytest.mark.parametrize("model", ["openai:m", "gemini:m"])
def test_photographs_become_masks_words_and_what_they_took(model):
    with Server(
        Model(answer=lambda text, image: f"<think>Number {image}.</think><answer><rg>square</rg></answer>")
    ) as server:
        found = predictor(server, model, input_price=2.0, output_price=8.0).predict(
            [group(number) for number in (4, 2, 3)]
        )
    assert [prediction.answer.reasoning for prediction in found] == ["Number 4.", "Number 2.", "Number 3."]
    for prediction in found:
        assert prediction.expressions == ("square",)
        assert prediction.reason is None
        assert prediction.confidence is None  # the server states no log-probabilities
        assert (prediction.usage.input_tokens, prediction.usage.output_tokens) == (INPUT, OUTPUT)
        assert prediction.usage.cost == pytest.approx((2 * INPUT + 8 * OUTPUT) / 1e6)
        (mask,) = prediction.masks
        assert mask.shape == (1, HEIGHT, WIDTH)
        assert mask.float().mean() == 0.5
    assert all(asked.most_tokens == 77 and asked.texts[0] == server.log[0].texts[0] for asked in server.log)


def test_a_group_is_one_request_with_all_its_images_and_files_are_read(tmp_path):
    files = [tmp_path / f"{number}.png" for number in (1, 2, 3)]
    for number, file in enumerate(files, 1):
        save(file, photograph(number))
    with Server(Model(answer=lambda *_: "<think>All.</think><answer><rg>[semantic] square</rg></answer>")) as server:
        prediction = predictor(server)(files, task="cosod")
        assert predictor(server)(files[0], question="Which one?").group.question == "Which one?"
    together, alone = server.log
    assert len(together.images) == len(prediction.masks) == 3
    assert alone.texts[0].startswith("Which one?")


def test_an_answer_in_another_form_is_malformed_and_segmented_all_the_same():
    with Server(Model(answer=lambda *_: "<answer><rg>the yellow square</rg></answer>")) as server:
        (prediction,) = predictor(server).predict([group(1)])
    assert "think" in (prediction.reason or "")
    assert prediction.expressions == ("the yellow square",)
    assert prediction.masks[0].any()


def test_a_refusal_names_its_photograph_and_leaves_the_others_be():
    with Server(Model({1: ["refusal"], 3: ["bad request"]}, answer=lambda *_: SAID)) as server:
        model = predictor(server)
        groups = [group(number) for number in (0, 1, 2, 3)]
        first, refused, last, turned_away = model.predict_each(groups)
        with pytest.raises(ValueError, match=r"^1\.png: refused: I will not\.$"):
            model.predict(groups)
    assert [first.text, last.text] == [SAID, SAID]
    assert "I will not." in str(refused)
    assert str(turned_away).startswith("3.png: refused: ")
    assert "this image is not allowed" in str(turned_away)
    assert len(server.log) == 4  # nobody is asked again


def test_a_stream_is_the_whole_text_and_then_the_prediction():
    with Server(Model(answer=lambda *_: SAID)) as server:
        stream = predictor(server).stream(group(1))
        assert next(stream) == SAID
        with pytest.raises(StopIteration) as end:
            next(stream)
    assert end.value.value.text == SAID
    assert end.value.value.masks[0].any()


def test_another_run_asks_for_nothing_that_was_answered():
    with Server(Model(answer=lambda *_: SAID)) as server:
        before = predictor(server, input_price=2.0, output_price=8.0)
        (first,) = before.predict([group(1)])
        after = predictor(server, input_price=2.0, output_price=8.0)
        again, new = after.predict([group(1), group(2)])
    assert [asked.image for asked in server.log] == [1, 2]
    assert (again.text, again.usage) == (first.text, first.usage)
    assert new.text == SAID
    assert "1 answers, 0 of them kept" in before.took
    assert "1 requests; 700 tokens in, 150 out, $0.0026" in before.took
    assert "2 answers, 1 of them kept" in after.took
    assert "1 requests; 1,400 tokens in, 300 out, $0.0052" in after.took


def test_where_words_came_from_is_refused_before_anything_is_asked():
    with Server(Model(answer=lambda *_: SAID)) as server:
        model = predictor(server)
        with pytest.raises(ValueError, match="openai:m cannot say where each word came from: that needs its weights"):
            model.predict([group(1)], explained=True)
        with pytest.raises(ValueError, match="needs its weights"):
            next(model.stream(group(1), explained=True))
        with pytest.raises(ValueError, match="needs its weights"):
            load_predictor("openai:m", base_url=server.url, explained=True)
    assert not server.log


def test_a_model_that_gives_no_answer_ends_by_one_line_without_the_key():
    with Server(Model({1: ["echo"]}, answer=lambda *_: SAID)) as server:
        model = predictor(server)
        with pytest.raises(UsageError) as stop:
            model.predict([group(0), group(1)])
        assert model.predict([group(0)])[0].text == SAID
    assert "\n" not in str(stop.value)
    assert KEY not in str(stop.value)
    assert [asked.image for asked in server.log].count(0) == 1


def test_loading_by_name_takes_no_weights_of_a_policy(monkeypatch):
    monkeypatch.setattr("lightning_sal.inference.predictor.load_policy", lambda *_: pytest.fail("weights are loaded"))
    with Server(Model(answer=lambda *_: SAID)) as server:
        model = load_predictor("openai:m", device="cpu", base_url=server.url)
        assert isinstance(model, EndpointPredictor)
        (prediction,) = model.predict([group(1)])
    assert prediction.masks[0].shape == (1, HEIGHT, WIDTH)
    assert server.log[0].most_tokens == 2048


def test_any_other_name_is_a_policy_that_is_loaded():
    assert isinstance(load_predictor("tiny", device="cpu"), Predictor)
    with pytest.raises(ValueError, match="openai:m is behind an endpoint, and no weights of it are here: "):
        Predictor.load("openai:m")


def test_what_is_missing_is_one_line_before_any_work(monkeypatch):
    monkeypatch.setattr("lightning_sal.inference.predictor.load_segmenter", lambda *_: pytest.fail("it is loaded"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UsageError, match=f"^m: nothing answers at http://127.0.0.1:{port}/v1: .*refused"):
        load_predictor("openai:m", "s", base_url=f"http://127.0.0.1:{port}/v1")
    with pytest.raises(ValueError, match="base_url 'localhost:8000' is no address"):
        load_predictor("openai:m", "s", base_url="localhost:8000")
    for model, name in (("openai:m", "OPENAI_API_KEY"), ("gemini:m", "GEMINI_API_KEY")):
        monkeypatch.delenv(name)
        with pytest.raises(UsageError, match=f"no key: put it into the environment variable {name}"):
            load_predictor(model, "s")


def test_the_library_of_an_endpoint_is_named_where_it_is_missing():
    code = (
        "import sys; sys.modules['openai'] = None; import lightning_sal\n"
        "try: lightning_sal.load_predictor('openai:m', 's')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UsageError this model needs the package openai: ")
