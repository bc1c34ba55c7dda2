"""ShareGPT-style conversations: lines as the two readers' documentation shapes them, and there and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sal.datasets.conversations import COLUMN, dataset_info, from_conversation, to_conversation
from lightning_sal.tasks import TASKS, TagRegions, register

ONE = "<think>t</think><answer><rg>the disc</rg></answer>"
TWO = "<think>t</think><answer><ins>left disc</ins><ins>right disc</ins></answer>"
ALL = "<think>t</think><answer><rg>[semantic] disc</rg></answer>"


def test_a_line_becomes_a_question_after_its_images_and_an_answer():
    line = {
        "task": "cosod",
        "images": ["a.jpg", "b.jpg", "c.jpg"],
        "masks": ["a.png", "b.png", "c.png"],
        "response": ALL,
    }
    assert to_conversation(line) == {
        "conversations": [
            {"from": "human", "value": "<image><image><image>" + TASKS["cosod"].instruction},
            {"from": "gpt", "value": ALL},
        ],
        "images": ["a.jpg", "b.jpg", "c.jpg"],
        "lightning_sal": '{"task": "cosod", "masks": ["a.png", "b.png", "c.png"]}',
    }


PATHS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: text.strip() and not any(mark in text for mark in ("<image>", "<video>", "<audio>"))
)
POLYGONS = st.lists(st.lists(st.lists(st.integers(0, 9), min_size=6, max_size=6), min_size=1, max_size=2), max_size=3)


@st.composite
def lines(draw):
    task = draw(st.sampled_from(tuple(TASKS)))
    images = draw(
        st.lists(PATHS, min_size=2, max_size=4) if task == "cosod" else st.lists(PATHS, min_size=1, max_size=1)
    )
    line = {"task": task, "images": images, "response": draw(TEXTS)}
    masks = st.lists(PATHS, max_size=4) if task == "sis" else st.just([f"{n}.png" for n in range(len(images))])
    truth = {"masks": masks} | ({"annotation": st.one_of(PATHS, POLYGONS)} if task == "sis" else {})
    key = draw(st.sampled_from((None, *truth)))
    return line | ({} if key is None else {key: draw(truth[key])})


@given(lines())
def test_there_and_back_is_the_identity_for_whatever_the_format_allows(line):
    back, left = from_conversation(json.loads(json.dumps(to_conversation(line))))
    assert back == line
    assert left == ()


# By the shapes in data/README.md of LLaMA-Factory (sharegpt; messages as in the OpenAI form) and in the page on custom
# datasets of ms-swift (messages with images).
@pytest.mark.parametrize(
    ("item", "line", "left"),
    [
        (
            {
                "conversations": [{"from": "human", "value": "<image>What stands out?"}, {"from": "gpt", "value": ONE}],
                "images": ["a.jpg"],
            },
            {"task": "sod", "images": ["a.jpg"], "response": ONE},
            ("a question in other words",),
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": "You segment."},
                    {"role": "user", "content": "<image><image>What do they share?"},
                    {"role": "assistant", "content": ALL},
                ],
                "images": ["a.jpg", "b.jpg"],
            },
            {"task": "cosod", "images": ["a.jpg", "b.jpg"], "response": ALL},
            ("a system prompt", "a question in other words"),
        ),
        (
            {
                "id": "000000033471",
                "image": "coco/b.jpg",
                "conversations": [
                    {"from": "human", "value": "<image>\n" + TASKS["sis"].instruction},
                    {"from": "gpt", "value": TWO},
                ],
            },
            {"task": "sis", "images": ["coco/b.jpg"], "response": TWO},
            ("`id`",),
        ),
    ],
    ids=["LLaMA-Factory", "ms-swift", "one image, with an id"],
)
def test_conversations_from_elsewhere(item, line, left):
    assert from_conversation(item) == (line, left)


def test_what_is_left_behind_is_named():
    said = [{"role": "user", "content": "<image>x"}, {"role": "assistant", "content": ONE, "loss": True}]
    item = {"messages": said, "images": ["a.jpg"], "image": "b.jpg", "tools": None, "source": "web"}
    _, left = from_conversation(item)
    assert left == ("`image`", "`source`", "`loss` of a turn", "a question in other words")


def test_question_and_system_turn_of_a_task_are_turns_of_its_conversation():
    register(TagRegions(name="where", title="t", instruction="Find it.", system="You segment.", tag="rg"))
    line = {"task": "where", "images": ["a.jpg"], "question": "A red disc.", "response": ONE}
    item = to_conversation(line)
    assert item["conversations"] == [
        {"from": "system", "value": "You segment."},
        {"from": "human", "value": "<image>A red disc.\nFind it."},
        {"from": "gpt", "value": ONE},
    ]
    assert from_conversation(item) == (line, ())
    del item[COLUMN]
    assert from_conversation(item, "where") == (line, ())
    item["conversations"][0]["value"] = "You are a pirate."
    assert from_conversation(item, "where") == (line, ("a system prompt",))
    with pytest.raises(ValueError, match="the question holds <video>"):
        to_conversation(line | {"question": "What does <video> show?"})


def test_what_a_task_is_told_holds_against_the_tags_alone():
    item = {
        "messages": [{"role": "user", "content": "<image>x"}, {"role": "assistant", "content": ALL}],
        "images": ["a.jpg"],
    }
    assert from_conversation(item)[0]["task"] == "sod"  # one image, so it cannot be CoSOD
    with pytest.raises(ValueError, match="1 images for the task cosod"):
        from_conversation(item, "cosod")
    with pytest.raises(ValueError, match="no answer to the task sis: "):
        from_conversation(item, "sis")


def turns(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


GOOD = {"conversations": turns("<image>x", ONE), "images": ["a.jpg"]}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ([], "not an object"),
        ({"images": ["a.jpg"]}, "neither `conversations` nor `messages`"),
        (GOOD | {"conversations": turns("<image>x", ONE) * 2}, "4 turns, where one question and one answer"),
        (GOOD | {"conversations": turns("<image>x", ONE)[::-1]}, "2 turns, where one question and one answer"),
        (GOOD | {"conversations": turns("<image>x", None)}, "a turn without a text"),
        (GOOD | {"conversations": turns("<image><image>x", ONE)}, "2 x <image> in the question and 1 images"),
        (GOOD | {"conversations": turns("x", ONE)}, "0 x <image> in the question and 1 images"),
        (GOOD | {"conversations": turns("<image>x", ONE.replace("t<", "<image><"))}, "the response holds <image>"),
        (GOOD | {"conversations": turns("<image>x", "the disc")}, "no task has such an answer to 1 images"),
        (GOOD | {"images": None}, "`images` is not a list of paths"),
        (GOOD | {"images": [{"bytes": "x"}]}, "`images` is not a list of paths"),
        (GOOD | {"images": ["https://a.b/c.jpg"]}, "is no file: download it first"),
        (GOOD | {COLUMN: {"task": "sod"}}, "is not the text of a JSON object"),
        (GOOD | {COLUMN: '{"task": "depth"}'}, "unknown task 'depth'"),
        (GOOD | {COLUMN: '{"task": "sod", "masks": []}'}, "0 masks for 1 images"),
    ],
)
def test_what_is_no_sample_is_refused_with_the_reason(item, reason):
    assert from_conversation(GOOD)[0]["task"] == "sod"
    with pytest.raises(ValueError, match=reason):
        from_conversation(item)


@pytest.mark.parametrize("mark", ["<image>", "<video>", "<audio>"])
def test_a_response_with_a_placeholder_is_refused(mark):
    with pytest.raises(ValueError, match=f"the response holds {mark}"):
        to_conversation({"task": "sod", "images": ["a.jpg"], "response": f"<think>{mark}</think>" + ONE})


def test_the_datasets_library_reads_every_kind_of_ground_truth_as_llama_factory_does(tmp_path):
    """The reader's steps: load the JSON, take the columns that dataset_info names, drop all others."""
    from datasets import load_dataset

    given = [
        {"task": "sod", "images": ["a.jpg"], "masks": ["a.png"], "response": ONE},
        {"task": "sis", "images": ["a.jpg"], "masks": [], "response": TWO},
        {"task": "sis", "images": ["a.jpg"], "annotation": "b.png", "response": TWO},
        {
            "task": "sis",
            "images": ["a.jpg"],
            "annotation": [[[0, 0, 3, 0, 3, 2]], [[0.5, 0, 3, 0, 3, 2]]],
            "response": TWO,
        },
        {"task": "sis", "images": ["a.jpg"], "annotation": [{"size": [1, 2], "counts": "11"}], "response": TWO},
        {"task": "cosod", "images": ["a.jpg", "b.jpg"], "response": ALL},
    ]
    path = tmp_path / "sft.json"
    path.write_text(json.dumps([to_conversation(line) for line in given]))
    entry = dataset_info(path)["sft"]
    assert entry["formatting"] == "sharegpt"
    names = entry["columns"]
    loaded = load_dataset(
        "json", data_files=[str(tmp_path / entry["file_name"])], split="train", cache_dir=str(tmp_path)
    )
    assert [from_conversation(row)[0] for row in loaded] == given

    def align(example):
        roles = {"human": "user", "gpt": "assistant"}
        said = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in example[names["messages"]]]
        return {"_prompt": said[:-1], "_response": said[-1:], "_images": example[names["images"]]}

    aligned = loaded.map(align, remove_columns=loaded.column_names)
    assert aligned.column_names == ["_prompt", "_response", "_images"]
    for row, line in zip(aligned, given, strict=True):
        assert row["_response"] == [{"role": "assistant", "content": line["response"]}]
        assert row["_prompt"][0]["content"].count("<image>") == len(row["_images"])
        assert row["_images"] == line["images"]
