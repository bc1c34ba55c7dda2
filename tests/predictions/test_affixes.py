"""Names that differ by one text."""

import pytest

from lightning_sal.predictions.affixes import common_affix


@pytest.mark.parametrize(
    ("longer", "shorter", "text"),
    [
        (["a_sal", "b_sal"], ["a", "b"], "_sal"),
        (["a_sal"], ["a", "b"], "_sal"),
        (["sal_a", "sal_b"], ["a", "b"], "sal_"),
        (["0012-DSS", "0113-DSS"], ["0012", "0113"], "-DSS"),
        (["cat/a_sal", "dog/a_sal"], ["cat/a", "dog/a"], "_sal"),
        (["cat/x_a", "dog/x_b"], ["cat/a", "dog/b"], "x_"),
        (["a.b_sal"], ["a.b"], "_sal"),
        (["a_sal", "b_pred"], ["a", "b"], None),  # two texts
        (["a_sal", "b"], ["a", "b"], None),  # not all of them
        (["a_sal", "c_sal"], ["a", "b"], None),  # a name that is nobody's
        (["cat/a_sal"], ["dog/a"], None),
        (["12", "22"], ["1", "2"], None),  # other numbers
        (["12"], ["2"], None),
        (["a_b_b"], ["a", "a_b"], None),  # two ways
        (["_sal"], [""], None),
        ([], ["a"], None),
    ],
)
def test_one_text_at_the_end_or_the_beginning_is_found(longer, shorter, text):
    affix = common_affix(longer, shorter)
    assert (affix and affix.text) == text
    assert affix is None or {affix.off(name) for name in longer} <= set(shorter)
