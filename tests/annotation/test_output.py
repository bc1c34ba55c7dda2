import json
import os

import pytest

from lightning_sal.annotation.output import Output, done_keys
from lightning_sal.annotation.samples import list_samples
from tests.annotation.parts import write_sod


@pytest.fixture
def samples(tmp_path):
    return list_samples("sod", write_sod(tmp_path / "data", 4), tmp_path, split=None, group_size=8)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "sft.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_sample_goes_to_one_of_two_files_at_once(samples, out, tmp_path):
    output = Output(out)
    output.accept(samples[0], "so")
    output.reject(samples[1], "kind: why", ["this", "that"])
    assert lines(out) == [samples[0].fields | {"response": "so"}]  # before it is closed
    assert lines(tmp_path / "sft.rejected.jsonl") == [
        samples[1].fields | {"reason": "kind: why", "answers": ["this", "that"]}
    ]
    output.close()
    assert Output(out).done == done_keys(out) == {samples[0].key, samples[1].key}


@pytest.mark.parametrize("kept", [1, 9, 12, 60])
def test_an_unfinished_last_line_is_cut_off(samples, out, kept):
    output = Output(out)
    output.accept(samples[0], "so")
    output.accept(samples[1], "so")
    output.close()
    whole = out.read_bytes()
    first = whole.index(b"\n") + 1
    os.truncate(out, first + kept)
    assert done_keys(out) == {samples[0].key}
    assert out.stat().st_size == first + kept  # looking alone changes nothing
    output = Output(out)
    assert out.read_bytes() == whole[:first]
    output.accept(samples[1], "so")
    assert out.read_bytes() == whole


def test_a_whole_line_that_lacks_its_end_stays(samples, out):
    output = Output(out)
    output.accept(samples[0], "so")
    output.close()
    whole = out.read_bytes()
    os.truncate(out, len(whole) - 1)
    assert Output(out).done == {samples[0].key}
    assert out.read_bytes() == whole


@pytest.mark.parametrize("content", ["some notes", '{"a": 1}\n', '{"task": "sod", "images": []}\n', "[1]\n{", "\n"])
def test_a_file_of_another_kind_is_left_alone(out, content):
    out.write_text(content)
    with pytest.raises(ValueError, match=r"sft.jsonl:1: .*name another file"):
        Output(out)
    assert out.read_text() == content


def test_a_bad_line_is_named_and_nothing_is_cut(samples, out):
    output = Output(out)
    output.accept(samples[0], "so")
    output.close()
    content = out.read_text() + 'oops\n{"task": "so'
    out.write_text(content)
    with pytest.raises(ValueError, match=r"sft.jsonl:2: "):
        Output(out)
    assert out.read_text() == content


def test_two_runs_cannot_write_at_once(samples, out):
    first = Output(out)
    with pytest.raises(BlockingIOError, match="another run is writing to it"):
        Output(out)
    first.close()
    Output(out).close()


def test_rejected_samples_that_are_asked_again_end_in_one_file(samples, out, tmp_path):
    output = Output(out)
    for sample in samples[:3]:
        output.reject(sample, "kind: first", [])
    output.close()
    again = Output(out, retry_rejected=True)
    assert again.done == set()
    again.accept(samples[0], "so")
    again.reject(samples[1], "kind: second", [])
    del again  # killed: its lock is gone, nothing else happens
    again = Output(out)
    rejected = lines(tmp_path / "sft.rejected.jsonl")
    assert [(line["images"], line["reason"]) for line in rejected] == [
        (samples[1].fields["images"], "kind: second"),
        (samples[2].fields["images"], "kind: first"),
    ]
    assert again.accepted == {samples[0].key}
    assert again.rejected == {samples[1].key, samples[2].key}
