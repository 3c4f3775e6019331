"""What the documentation site is made of: every public name, and docstrings in its markup."""

import re
from pathlib import Path

import pytest

import keras_mpt
from tools.site.docstrings import to_rst
from tools.site.names import is_described, public_names

ROOT = Path(__file__).parents[1]
REFERENCE = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.rst"))


def test_every_public_name_is_on_a_page():
    listed = re.findall(r"^\.\. (?:public|py:module):: (\S+)$", REFERENCE, re.MULTILINE)
    assert len(listed) == len(set(listed))
    names = public_names()
    top = {name for name in names if not isinstance(names.get(name.rpartition(".")[0]), type)}
    assert top - {"keras_mpt.__version__"} == set(listed) - {"keras_mpt"}


def test_every_public_name_is_described():
    assert [name for name, item in public_names().items() if not is_described(item)] == []


def test_names_are_those_that_a_user_calls():
    names = public_names()
    assert "keras_mpt.models.PromptTunedModel.add_task" in names
    assert "keras_mpt.models.PromptTunedCausalLM.generate" in names
    # Described where it is made; Keras's own; what Keras alone calls.
    assert "keras_mpt.models.PromptTunedCausalLM.add_task" not in names
    assert "keras_mpt.models.PromptTunedModel.summary" not in names
    assert "keras_mpt.models.PromptTunedModel.train_step" not in names


def test_what_has_no_docstring_is_noticed():
    assert not is_described(lambda: None)
    assert is_described(keras_mpt.adapt)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A `TaskMix`.", r"A \ :py:obj:`TaskMix <keras_mpt.TaskMix>`\ ."),
        (
            "See `keras_mpt.recipes.paper(steps=3)`.",
            r"See \ :py:obj:`keras_mpt.recipes.paper(steps=3) <keras_mpt.recipes.paper>`\ .",
        ),
        # Two are called so.
        ("`few_shot`", r"\ ``few_shot``\ "),
        ("`batch_size` is 2**18 of x_", r"\ ``batch_size``\  is 2\*\*18 of x\_"),
        ("This *is* P * Q", r"This *is* P \* Q"),
        ("`own` and `adapt`", r"\ ``own``\  and \ ``adapt``\ "),
    ],
)
def test_prose(text, wanted):
    assert to_rst(text, frozenset({"own", "adapt"})) == [wanted]


def test_sections():
    text = (
        "One.\n\nArgs:\n    a, b,\n        c: first: and\n        more.\n    **d: last.\n\n"
        "Returns:\n    A: it is.\n\nExample:\n    ```python\n    x = {1: 2}\n    ```\n\nSource: P."
    )
    found = [line for line in to_rst(text) if line]
    assert found == [
        "One.",
        ":Args:",
        "   - **a, b, c** – first: and",
        "     more.",
        r"   - **\*\*d** – last.",
        ":Returns:",
        "   A: it is.",
        ":Example:",
        "   .. code-block:: python",
        "      x = {1: 2}",
        "Source: P.",
    ]


def test_a_list_behind_prose_is_one():
    assert to_rst("Either:\n- one,\n- two.") == ["Either:", "", "- one,", "- two."]
