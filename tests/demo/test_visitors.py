"""Who has which files."""

import pytest

from lightning_sal.demo import visitors
from lightning_sal.demo.visitors import COOKIE, Visitors, visitor_of


def test_a_visitor_is_known_by_the_name_he_was_given():
    names = [Visitors.welcome() for _ in range(2)]
    assert names[0] != names[1]
    assert [visitor_of({COOKIE: name}) for name in names] == names


@pytest.mark.parametrize("cookies", [{}, {COOKIE: ""}, {COOKIE: "me"}, {COOKIE: "0" * 31 + "g"}, {"other": "0" * 32}])
def test_nobody_is_known_by_another_name(cookies):
    assert visitor_of(cookies) is None


def test_files_are_whose_they_were_given_to():
    files = Visitors()
    files.share(["/example.png"])
    files.give("a", "/uploads/1.png")
    assert files.may_see("a", "/uploads/1.png")
    assert files.may_see(None, "/example.png")
    for visitor, path in (("b", "/uploads/1.png"), (None, "/uploads/1.png"), ("a", "/uploads/../uploads/1.png"),
                          ("a", "/uploads"), ("a", None), ("a", ["/uploads/1.png"])):  # fmt: skip
        assert not files.may_see(visitor, path)


def test_the_newest_are_remembered(monkeypatch):
    monkeypatch.setattr(visitors, "MOST", 2)
    files = Visitors()
    for number in range(3):
        files.give("a", f"{number}.png")
    assert [files.may_see("a", f"{number}.png") for number in range(3)] == [False, True, True]
