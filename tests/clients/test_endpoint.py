"""A model behind an endpoint is asked once for each answer, whatever the server does, and says what it took."""

import io
import json
import math
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_sal.clients.endpoint import AskedModel, closing, opening
from lightning_sal.clients.endpoint_config import EndpointConfig
from lightning_sal.errors import UsageError
from lightning_sal.frames import Shrunk, Square
from lightning_sal.samples import ImageGroup, Message
from tests.annotation.parts import photograph
from tests.annotation.server import INPUT, OUTPUT, Model, Server

KEY = "sk-very-secret-0123456789"
MODELS = ["some-model", "gemini:some-model"]
PRICES = {"input_price": 2.0, "output_price": 10.0}
COST = (2.0 * INPUT + 10.0 * OUTPUT) / 1e6  # of an answer


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, KEY)


@pytest.fixture
def asked(tmp_path):
    """Makes models that are asked at a server, with a cache in the test's folder and little patience."""
    made = []

    def make(server, model=MODELS[0], max_new_tokens=77, **options):
        fast = {"cache": str(tmp_path / "kept"), "backoff": 0.001, "retries": 2, "timeout": 5.0}
        made.append(AskedModel(EndpointConfig(model, server.url, **fast | options), max_new_tokens))
        return made[-1]

    yield make
    for model in made:
        model.close()


def group(*numbers, key=""):
    images = tuple(torch.from_numpy(photograph(number)) for number in numbers)
    return ImageGroup(key or str(numbers), "cosod" if numbers[1:] else "sod", images)


def turns(group, text="what stands out?", system=""):
    before = (Message("system", system),) if system else ()
    return (*before, Message("user", text, len(group.images)))


def ask(model, numbers, **said):
    groups = [group(number) for number in numbers]
    return model.ask(groups, [turns(each, **said) for each in groups])


def images_of(server):
    return [each.image for each in server.log]


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_has_its_text_confidence_and_what_it_took(asked, model):
    logps = [math.log(0.5), math.log(0.25), 0.0]
    with Server(Model(logps=logps)) as server:
        (answer,) = ask(asked(server, model, **PRICES), [3])
    assert answer.text.startswith("<think>")
    assert (answer.truncated, answer.refusal) == (False, None)
    assert answer.confidence == pytest.approx((0.5 + 0.25 + 1) / 3)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (INPUT, OUTPUT)
    assert answer.usage.cost == pytest.approx(COST)
    assert answer.usage.seconds > 0


@pytest.mark.parametrize("model", MODELS)
def test_where_there_are_no_log_probabilities_there_is_no_confidence(asked, model):
    with Server(Model()) as server:  # which refuses to be asked for them
        answers = ask(asked(server, model), range(4))
    assert [answer.confidence for answer in answers] == [None] * 4
    assert all(answer.text for answer in answers)
    assert answers[0].usage.cost is None


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        {"content": None},
        {"content": []},
        {"content": [{"token": "t"}]},
        {"tokens": ["t"], "token_logprobs": [0]},
    ],
)
def test_other_forms_of_log_probabilities_are_none(asked, told):
    choice = {"message": {"content": "yes"}, "finish_reason": "length", "logprobs": told}
    with Server(Model(raw=lambda _: (200, "application/json", json.dumps({"choices": [choice]}).encode()))) as server:
        (answer,) = ask(asked(server), [1])
    assert (answer.text, answer.truncated, answer.confidence) == ("yes", True, None)
    assert (answer.usage.input_tokens, answer.usage.cost) == (None, None)


def test_the_log_probabilities_of_a_stream_are_those_of_its_parts(asked):
    def raw(_):
        parts = [("y", 0.5), ("es", 1.0)]
        chunks = [
            {"choices": [{"delta": {"content": text}, "logprobs": {"content": [{"logprob": math.log(p)}]}}]}
            for text, p in parts
        ]
        chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        return 200, "text/event-stream", "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode()

    with Server(Model(raw=raw)) as server:
        (answer,) = ask(asked(server), [1])
    assert (answer.text, answer.confidence) == ("yes", pytest.approx(0.75))


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_conversation_is_sent_as_it_is(asked, model):
    several = group(1, 2, 3)
    talk = (
        Message("system", "Be brief."), Message("user", "what?", 3), Message("assistant", "that"), Message("user", "why?"),
    )  # fmt: skip
    with Server(Model()) as server:
        model = asked(server, model)
        model.ask([several, group(4)], [talk, turns(group(4))])
    one, other = sorted(server.log, key=lambda each: each.image)
    assert (one.system, one.texts, len(one.images)) == ("Be brief.", ("what?", "that", "why?"), 3)
    assert (other.system, other.texts, len(other.images)) == ("", ("what stands out?",), 1)
    assert one.most_tokens == 77


@pytest.mark.parametrize(
    "talk",
    [
        (),
        (Message("system", "x"),),
        (Message("user", "a", 1), Message("assistant", "b")),
        (Message("user", "a"), Message("assistant", "b"), Message("user", "c", 1)),
        (Message("user", "a", 1), Message("user", "b"), Message("user", "c")),
        (Message("user", "a", 0),),
    ],
)
def test_a_conversation_of_another_shape_is_refused(asked, talk):
    with Server(Model()) as server, pytest.raises(ValueError, match="turns of the user and the model"):
        asked(server).ask([group(1)], [talk])
    assert not server.log


@pytest.mark.parametrize("side", [40, 61, 80, 200])
def test_images_are_sent_as_large_as_their_places_are_measured(asked, side):
    with Server(Model()) as server:
        model = asked(server, longest_side=side)
        ask(model, [5])
    sent = Image.open(io.BytesIO(server.log[0].images[0]))
    assert (sent.format, max(sent.size)) == ("JPEG", min(side, 80))
    assert (sent.height, sent.width) == model.config.units.extent((60, 80)) == Shrunk(side).extent((60, 80))
    assert EndpointConfig("m", frame=1000).units == Square(1000)


def test_answers_come_in_the_order_of_the_groups(asked):
    """The first one is answered last."""
    with Server(Model({9: ["hang", "ok"]})) as server:
        server.at_request(6, server.released.set)
        answers = ask(asked(server, concurrency=3, timeout=60.0), [9, 4, 7, 1, 2, 8])
    assert images_of(server)[-1] == 9
    numbers = [int(re.findall(r"number (\d+)", answer.text)[0]) for answer in answers]
    assert numbers == [9, 4, 7, 1, 2, 8]


def test_the_same_content_is_asked_for_once(asked):
    with Server(Model()) as server:
        model = asked(server)
        first, second, third = model.ask([group(1, key="a"), group(2), group(1, key="b")], [turns(group(1))] * 3)
        assert ask(model, [1]) == [first]
    assert first == third != second
    assert sorted(images_of(server)) == [1, 2]
    assert model.ledger.answers == 2


@pytest.mark.parametrize("model", MODELS)
def test_another_run_has_the_same_answers_and_asks_for_none(asked, model, tmp_path):
    with Server(Model({2: ["refusal"], 3: ["429 after", "ok"]}, logps=[-0.5])) as server:
        first = asked(server, model, **PRICES)
        answers = ask(first, range(5), system="Be brief.")
        count = len(server.log)
        again = asked(server, model, **PRICES)
        assert again.kept == 5
        assert ask(again, range(5), system="Be brief.") == answers  # seconds too
        assert len(server.log) == count == 6
    assert (first.ledger.kept, first.ledger.requests, again.ledger.kept, again.ledger.requests) == (0, 6, 5, 0)
    for ledger in (first.ledger, again.ledger):
        assert (ledger.answers, ledger.refused) == (5, 1)
        assert (ledger.input_tokens, ledger.output_tokens) == (5 * INPUT, 5 * OUTPUT)
        assert ledger.cost == pytest.approx(5 * COST)
    files = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert len(files) == 5
    assert not any(KEY in path.read_text() or KEY in str(path) for path in files)


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.5}, {"temperature": None}, {"max_new_tokens": 78}, {"longest_side": 30}, {"model": "other"}],
)
def test_whatever_decides_an_answer_makes_it_another_one(asked, change):
    with Server(Model()) as server:
        ask(asked(server), [1])
        ask(asked(server, **change), [1])
        ask(asked(server), [1])
    assert len(server.log) == 2


@pytest.mark.parametrize("said", [{"text": "what?"}, {"system": "Be brief."}])
def test_other_words_are_another_question(asked, said):
    with Server(Model()) as server:
        ask(asked(server), [1])
        ask(asked(server), [1], **said)
        ask(asked(server), [1], **said)
    assert len(server.log) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"reply": "yes"}', '{"reply": {"reply": {"text": "yes"}}}'])
def test_a_file_that_holds_no_answer_is_asked_for_again(asked, content, tmp_path):
    with Server(Model()) as server:
        (answer,) = ask(asked(server), [1])
        (file,) = (path for path in (tmp_path / "kept").rglob("*") if path.is_file())
        file.write_text(content)
        assert ask(asked(server), [1])[0].text == answer.text
        assert ask(asked(server), [1])[0].text == answer.text
    assert len(server.log) == 2


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("deed", ["429", "429 after", "500", "reset", "cut body", "cut JSON"])
def test_what_may_pass_is_asked_again(asked, model, deed):
    with Server(Model({1: [deed, deed, "ok"]})) as server:
        model = asked(server, model)
        answers = ask(model, [0, 1])
    assert all(answer.text and answer.refusal is None for answer in answers)
    assert sorted(images_of(server)) == [0, 1, 1, 1]
    assert model.ledger.requests == 4


def test_an_error_that_comes_with_status_200_is_one(asked):
    answers = [{"error": {"message": "busy", "code": 503}}, {"choices": [{"message": {"content": "yes"}}]}]
    with Server(Model(raw=lambda _: (200, "application/json", json.dumps(answers.pop(0)).encode()))) as server:
        (answer,) = ask(asked(server), [1])
    assert answer.text == "yes"


def test_an_answer_that_takes_too_long_is_asked_for_again(asked):
    with Server(Model({1: ["hang", "ok"]})) as server:
        (answer,) = ask(asked(server, timeout=0.5), [1])
    assert answer.text
    assert len(server.log) == 2


@pytest.mark.parametrize(("model", "reason"), [(MODELS[0], "I will not."), (MODELS[1], "SAFETY")])
def test_a_refusal_is_an_answer_without_text_that_says_why(asked, model, reason):
    with Server(Model({2: ["refusal"]})) as server:
        model = asked(server, model, **PRICES)
        answers = ask(model, range(4))
    assert [answer.refusal for answer in answers] == [None, None, reason, None]
    assert answers[2].text == ""
    assert answers[2].usage.cost == pytest.approx(COST)  # it was written, if only to be withheld
    assert model.ledger.refused == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_will_never_be_answered_is_an_answer_that_cost_nothing(asked, status):
    """It is not kept: the next run may ask by other settings of the server."""
    bodies = []

    def raw(body):
        bodies.append(body)
        error = json.dumps({"error": {"message": "this image is not allowed"}}).encode()
        return status, "application/json", error

    with Server(Model(raw=raw)) as server:
        model = asked(server, **PRICES)
        (answer,) = ask(model, [1])
        assert ask(model, [1]) == [answer]
        ask(asked(server), [1])
    assert (answer.text, answer.confidence) == ("", None)
    assert "this image is not allowed" in answer.refusal
    assert (answer.usage.input_tokens, answer.usage.cost) == (0, 0)
    assert len(bodies) == 2
    with pytest.raises(
        UsageError, match=r"answered nothing: each of 1 requests was turned away, the last: .*not allowed"
    ):
        model.require_answers(model.ledger)


def test_many_that_are_turned_away_in_a_row_end_the_run(asked):
    with Server(Model({number: ["bad request"] for number in range(9)})) as server:
        model = asked(server, concurrency=1, give_up_after=3)
        with pytest.raises(
            UsageError, match=r"some-model stopped: 3 requests in a row were turned away, the last: .*allowed"
        ):
            ask(model, range(9))
        assert len(server.log) == 3
        server.deeds = {number: ["bad request"] for number in (1, 2, 4)}  # never so many in a row
        answers = ask(asked(server, concurrency=1, give_up_after=3), range(6))
    assert [bool(answer.refusal) for answer in answers] == [False, True, True, False, True, False]


@pytest.mark.parametrize(
    ("deed", "said"),
    [("500", "something broke"), ("no key", "401"), ("echo", "internal error"), ("hang", "no answer in")],
)
@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_cannot_go_on_says_how_it_will(asked, model, deed, said):
    """What was answered before is kept, and the next run asks for the rest alone."""
    with Server(Model({3: [deed]})) as server:
        model = asked(server, model, concurrency=1, timeout=0.5)
        with pytest.raises(UsageError) as stop:
            ask(model, range(6))
        line = str(stop.value)
        assert said in line
        assert line.endswith(f"; 3 answers, kept in {model.folder}: the same command goes on from there")
        assert KEY not in line
        assert "\n" not in line
        server.deeds, before = {}, len(server.log)
        assert all(answer.text for answer in ask(asked(server, model.config.model), range(6)))
    assert sorted(images_of(server)[before:]) == [3, 4, 5]


def test_without_a_cache_what_is_lost_is_said(asked):
    with Server(Model({1: ["no key"]})) as server, pytest.raises(UsageError, match=r"1 answers, lost: set a cache$"):
        ask(asked(server, cache=None, concurrency=1), range(2))


def test_a_budget_ends_the_run_and_counts_what_is_kept(asked):
    """The dearest that a request can be decides: a byte of text and 1,200 tokens an image, or longest_side^2 / 480."""
    most = (2.0 * (len("what stands out?") + 32 + 1024**2 // 480) + 10.0 * 77) / 1e6
    budget = 2 * COST + most  # the third request fits, the fourth does not
    with Server(Model()) as server:
        model = asked(server, concurrency=1, budget=budget, **PRICES)
        with pytest.raises(UsageError) as stop:
            ask(model, range(6))
        assert f"the budget of ${budget:g} allows no further request" in str(stop.value)
        assert f"3 answers, ${3 * COST:.4f} spent, kept in" in str(stop.value)
        assert str(stop.value).endswith("the same command with a higher budget goes on from there")
        assert len(server.log) == 3
        with pytest.raises(UsageError, match="allows no further request"):
            ask(asked(server, budget=budget, **PRICES), range(6))
        assert len(server.log) == 3
        assert len(ask(asked(server, budget=budget, **PRICES), range(3))) == 3  # nothing new is asked
        assert len(ask(asked(server, budget=1.0, **PRICES), range(6))) == 6
    assert sorted(images_of(server)) == [0, 1, 2, 3, 4, 5]


def test_the_lines_around_a_run(asked, tmp_path):
    with Server(Model({1: ["refusal"], 2: ["500", "ok"]})) as server:
        ask(asked(server), [0])
        model = asked(server, **PRICES)
        start = opening(model.config, model.kept)
        ask(model, range(3))
        assert (
            start == f"some-model at {server.url}: 1 answers are kept already; $2 and $10 a million tokens in and out"
        )
    end = closing(model.config, model.ledger)
    assert "3 answers, 1 of them kept from before; 3 requests, 1 of unknown cost; " in end
    assert f"{3 * INPUT:,} tokens in, {3 * OUTPUT:,} out, ${3 * COST:.4f}; 1 refused" in end
    assert "no price is known" in opening(EndpointConfig("gemini:m"), 0)
    assert "m at Gemini's API: " in opening(EndpointConfig("gemini:m"), 0)


def test_ranks_share_the_budget_the_rate_and_the_concurrency():
    part = EndpointConfig("m", budget=9.0, per_minute=30.0, concurrency=8, **PRICES).share(3)
    assert (part.budget, part.per_minute, part.concurrency) == (3.0, 10.0, 2)
    assert EndpointConfig("m", concurrency=1).share(4) == EndpointConfig("m", concurrency=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ""}, "no model behind an endpoint"),
        ({"model": "local:folder"}, "no model behind an endpoint"),
        ({"base_url": "localhost:8000"}, "is no address: give http"),
        ({"base_url": "http://me:secret@host/v1"}, "keys come from the environment alone"),
        ({"input_price": 1.0}, "or neither"),
        ({"budget": 1.0}, "needs policy.input_price"),
        ({"concurrency": 0}, "policy.concurrency 0 must be above 0"),
        ({"timeout": 0.0}, "policy.timeout 0.0 must be above 0"),
        ({"retries": -1}, "policy.retries -1 must be 0 or above"),
        ({"temperature": -0.1}, "policy.temperature -0.1 must be 0 or above"),
        ({"longest_side": 0}, "policy.longest_side 0 must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EndpointConfig(**{"model": "m", **options})


def test_a_name_cannot_leave_the_folder_of_the_cache():
    model = AskedModel(EndpointConfig("openai:../../org/name:tag", cache="kept"), 9)
    assert Path(model.folder).parent == Path("kept")


def test_an_address_of_the_environment_is_another_one(monkeypatch):
    own = AskedModel(EndpointConfig("a"), 8).folder
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    config = EndpointConfig("a")
    assert config.address == "http://localhost:1/v1"
    assert own != AskedModel(config, 8).folder == AskedModel(EndpointConfig("a", "http://localhost:1/v1"), 8).folder
