"""Texts, JSON and YAML of others: read whatever their editor adds, and one line where they are none."""

import os

import pytest

from lightning_sal.errors import printable
from lightning_sal.files.reading import compose_yaml, parse_object, parse_yaml, read_json, read_text


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_text_with_or_without_a_byte_order_mark(tmp_path, start, end):
    (tmp_path / "a").write_bytes(start + "é\u2028".encode() + end + b"2" + end)
    assert read_text(tmp_path / "a") == "é\u2028\n2\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{}".encode("utf-16"), "a: written in UTF-16, and UTF-8 is read here: save it as UTF-8"),
        ("{}".encode("utf-16-le"), "a: written in UTF-16"),
        ("{}".encode("utf-16-be"), "a: written in UTF-16"),
        ('[\n"中"]'.encode("gbk"), "a:2: not UTF-8"),
        (b" \n", "a: holds no line"),
        (b"\xef\xbb\xbf", "a: holds no line"),
        (b'[1,\n2,\n"x]', r"a:3: not JSON: "),
        (b"[" * 100_000, "a: not JSON that can be read: nested too deeply"),
        (b"1" * 5000, "a: not JSON that can be read: Exceeds the limit"),
    ],
)
def test_what_is_no_json_is_one_line(tmp_path, monkeypatch, content, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{reason}") as error:
        read_json((tmp_path / "a").relative_to(tmp_path))
    assert "\n" not in str(error.value)


def test_what_has_no_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match="not a file"):
            read_text(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_text(tmp_path / "none")


def test_another_value_than_an_object_is_named():
    with pytest.raises(ValueError, match="not an object"):
        parse_object("[1]")


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(10 * [f'*{old}'])}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join(10 * [f'*{old}'])}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("read", [parse_yaml, compose_yaml])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "a.yaml:5: its aliases stand for more than 100000 values"),
        (MERGED, r"a.yaml:\d: its aliases stand for more than 100000 values"),
        ("x: 1\ny: &y\n  - *y\n", r"a.yaml:3: \*y stands within &y"),
        ("&a {b: {*a : 1}}", r"a.yaml:1: \*a stands within &a"),
        ("a: 1\nb: " + "[" * 5000, "a.yaml:2: lists and mappings in each other, more than 100 deep"),
        ("a: 1\nb:\n  " + "- " * 5000, "a.yaml:3: lists and mappings in each other"),
        ("a: *b", "a.yaml:1: not valid YAML: found undefined alias"),
        ("a: 1\nb: [1", r"a.yaml:2: not valid YAML: "),
        ("a: \x07", "a.yaml: not valid YAML: "),
    ],
)
def test_yaml_takes_no_more_than_its_text(read, text, reason):
    with pytest.raises(ValueError, match=f"^{reason}") as error:
        read(text, "a.yaml")
    assert "\n" not in str(error.value)


def test_yaml_builds_values_alone():
    assert parse_yaml("\ufeffa: &a [1, x]\nb: *a\nc: {<<: {d: 2}}", "a.yaml") == {
        "a": [1, "x"], "b": [1, "x"], "c": {"d": 2}
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"a\.yaml:1: not valid YAML: could not determine a constructor"):
        parse_yaml("!!python/object/apply:os.getcwd []", "a.yaml")
    with pytest.raises(ValueError, match=r"a\.yaml: not valid YAML: month must be in 1\.\.12"):
        parse_yaml("a: 2024-13-45", "a.yaml")


def test_what_a_terminal_would_obey_is_shown():
    assert printable("a\nb\x1b[31m\ud800\u2028 é 中\u3000\xa0") == "a\\nb\\x1b[31m\\ud800\\u2028 é 中\u3000\xa0"
