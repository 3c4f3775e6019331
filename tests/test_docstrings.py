"""The examples in docstrings run, and "Defaults to" is what the signature says."""

import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap

import keras
import keras_hub
import numpy as np
import pytest
import safetensors.numpy

import keras_mpt
import keras_mpt.analysis
from tests.marks import only_eager

FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def public_objects():
    """Every class and function that the API lists, with the public methods of the classes."""
    found = {}
    for module in (keras_mpt, keras_mpt.models, keras_mpt.analysis, keras_mpt.recipes):
        for name in module.__all__:
            item = getattr(module, name)
            if inspect.isclass(item) or inspect.isfunction(item):
                found[name] = item
                found |= public_methods(item) if inspect.isclass(item) else {}
    return found


def public_methods(cls):
    """Those of the class and of the classes of ours that it stands on, by where they are."""
    return {
        f"{of.__name__}.{name}": getattr(function, "__func__", function)
        for of in cls.__mro__
        if of.__module__.startswith("keras_mpt")
        for name, function in vars(of).items()
        if not name.startswith("_") and callable(getattr(of, name))
    }


OBJECTS = public_objects()
EXAMPLES = {n: o for n, o in OBJECTS.items() if FENCE.search(inspect.getdoc(o) or "")}


# What they do is tested on every backend by tests of its own.
@only_eager
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path):
    for code in FENCE.findall(inspect.getdoc(EXAMPLES[name])):
        for module in re.findall(r"^import (\w+)$", code, re.MULTILINE):
            pytest.importorskip(module)
        scope = {
            "keras": keras,
            "keras_hub": keras_hub,
            "keras_mpt": keras_mpt,
            "np": np,
            "safetensors": safetensors,
            "tmp_path": tmp_path,
        }
        exec(compile(textwrap.dedent(code), f"<example of {name}>", "exec"), scope)


def test_every_class_and_function_of_the_api_has_an_example():
    base = {"PromptTunedModel"}  # What the others share; it is not made by itself.
    top = {n for n in OBJECTS if "." not in n} - base
    assert top - set(EXAMPLES) == set()


@pytest.mark.parametrize("name", [n for n in OBJECTS if "." not in n])
def test_defaults_to_is_the_signature_s(name):
    item = OBJECTS[name]
    text = inspect.getdoc(item) or ""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE)
    if section is None:
        assert not inspect.isfunction(item)
        return
    entries = re.findall(
        r"^    ([a-z_]+): (.*?)(?=^    \S|\Z)", section[1], re.DOTALL | re.MULTILINE
    )
    parameters = inspect.signature(item).parameters
    assert entries, name
    for argument, described in entries:
        default = parameters[argument].default
        stated = re.search(r"Defaults\s+to\s+`([^`]*)`", described)
        if default is inspect.Parameter.empty:
            assert stated is None, argument
        elif argument != "num_virtual_tokens":  # `None` there only says that it must be given.
            assert stated is not None, argument
            assert stated[1].strip("\"'") == str(default), argument


def test_every_module_says_what_it_is_for():
    for module in pkgutil.walk_packages(keras_mpt.__path__, "keras_mpt."):
        if module.name != "keras_mpt.version":
            assert importlib.import_module(module.name).__doc__, module.name


def test_no_example_is_written_for_doctest():
    """Examples are fenced code, which the test above runs; `>>>` would be run by nobody."""
    finder = doctest.DocTestFinder(recurse=False)
    assert not [n for n, o in OBJECTS.items() for t in finder.find(o, n) if t.examples]
