"""The pages about extending: what they show is what there is."""

from pathlib import Path

from lightning_sal import callbacks

ROOT = Path(__file__).parents[2]


def test_every_example_is_shown_whole():
    pages = (ROOT / "docs/extending.md").read_text() + (ROOT / "docs/callbacks.md").read_text()
    for path in (ROOT / "examples").iterdir():
        if path.is_file():
            assert f'--8<-- "examples/{path.name}"' in pages


def test_every_callback_has_a_row():
    page = (ROOT / "docs/callbacks.md").read_text()
    missing = [name for name in callbacks.__all__ if f"\n| `{name}` | " not in page]
    assert not missing, f"docs/callbacks.md has no row for {missing}"
