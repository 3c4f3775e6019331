"""Names with a leading underscore that belong to Keras are used in `_keras.py` alone."""

import ast
import importlib
import re
from pathlib import Path

import keras
import keras_hub

import keras_mpt
from tests.marks import only_eager

# It reads sources, which are the same on every backend.
pytestmark = only_eager

PACKAGE = Path(keras_mpt.__file__).parent
PRIVATE = re.compile(r"_[a-z][a-z0-9_]*")


def private_names(*packages):
    """Every private attribute, method and argument in the sources of some packages."""
    found = set()
    for package in packages:
        for path in (Path(package.__file__).parent / "src").rglob("*.py"):
            if not path.name.endswith("_test.py"):
                found |= set(re.findall(r"(?:\.|def )(_[a-z][a-z0-9_]*)", path.read_text()))
    return found


def own_names(tree, keras_classes=()):
    """What a file defines by itself: methods, attributes of `self`, fields, functions.

    Not so in a subclass of Keras's: there the name is Keras's, whoever assigns to it.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in keras_classes:
            continue
        for inner in node.body if isinstance(node, (ast.ClassDef, ast.Module)) else ():
            if isinstance(inner, ast.ClassDef):
                continue
            for item in ast.walk(inner):
                if isinstance(item, ast.FunctionDef):
                    found.add(item.name)
                elif isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store):
                    found |= {item.attr} if ast.unparse(item.value) == "self" else set()
                elif isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
                    found.add(item.id)
    return found


LOOKUPS = ("getattr", "hasattr", "setattr", "delattr", "get", "pop", "setdefault")


def used_names(tree):
    """Private attributes, and strings that one is looked up by, with their lines."""
    for node in ast.walk(tree):
        strings = []
        if isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            called = called if isinstance(called, str) else ast.unparse(called)
            strings = node.args if called in LOOKUPS else []
        elif isinstance(node, ast.Subscript):
            strings = [node.slice]
        for item in strings:
            if isinstance(item, ast.Constant) and PRIVATE.fullmatch(str(item.value)):
                yield item.value, node.lineno


def wrong_uses(source, keras_names, keras_classes=()):
    """Private names of Keras in a source that does not define them itself."""
    tree = ast.parse(source)
    own = own_names(tree, keras_classes)
    return [(n, line) for n, line in used_names(tree) if n in keras_names and n not in own]


def keras_classes_in(path):
    """The names of the classes in a file of the package that stand on a class of Keras's."""
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    classes = vars(importlib.import_module(name.removesuffix(".__init__"))).values()
    return {
        c.__name__
        for c in classes
        if isinstance(c, type) and any(b.__module__.startswith("keras.") for b in c.__mro__)
    }


def test_no_other_file_uses_one():
    keras_names = private_names(keras, keras_hub)
    assert {"_compile_config", "_nodes_by_depth", "_build_cache"} < keras_names
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text()
        if path.name == "_keras.py":
            assert "keras.src" in source
            continue
        uses = wrong_uses(source, keras_names, keras_classes_in(path))
        assert not uses, path.relative_to(PACKAGE)
        assert not re.search(r"\b(from|import) keras(_hub)?\.src\b", source), path


def test_the_search_finds_uses_of_every_kind():
    names = {"_tracker", "_torch_params", "_metrics"}
    source = """
layer._tracker.lock()
hasattr(x, '_torch_params')
class Plain:
    def f(self):
        self._metrics = []
"""
    found = [("_tracker", 2), ("_torch_params", 3)]
    assert sorted(wrong_uses(source, names), key=lambda use: use[1]) == found
    of_keras = wrong_uses(source.replace("Plain", "Model"), names, {"Model"})
    assert sorted(of_keras, key=lambda use: use[1]) == [*found, ("_metrics", 6)]


def test_each_name_has_its_reason():
    """Every private name in the file is named in a docstring or comment of its function."""
    source = (PACKAGE / "_keras.py").read_text()
    keras_names = private_names(keras)
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        doc = ast.get_docstring(function) or ""
        used = {n for n, _ in used_names(function) if n in keras_names and n not in doc}
        assert not used, (function.name, used)
