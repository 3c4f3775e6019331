"""What a user may call, and that the site has all of it. A Sphinx extension.

`.. public:: keras_mpt.TaskMix` on a page of docs/api/ puts a name there, of a class with its
methods. A name that is on no page, or says nothing of itself, is an error of the build.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.util import logging
from sphinx.util.nodes import nested_parse_with_titles

import keras_mpt

MODULES = (keras_mpt, keras_mpt.models, keras_mpt.analysis, keras_mpt.recipes)
BASES = (
    keras.Model,
    keras.callbacks.Callback,
    keras.distribution.ModelParallel,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.utils.PyDataset,
)
KERAS = frozenset(name for base in BASES for name in dir(base))


@functools.cache
def public_names() -> dict[str, Any]:
    """All public names with their modules, and under those of classes what a user calls of them."""
    found = {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in MODULES
        for name in module.__all__
    }
    classes = {item: name for name, item in found.items() if inspect.isclass(item)}
    for cls, full in classes.items():
        above = [base for base in cls.__mro__[1:] if base in classes]
        for name, item in _members(cls).items():
            # A method stands where it is made, if that is public, and not in each class below.
            if not any(item is _members(base).get(name) for base in above):
                found[f"{full}.{name}"] = item
    return found


@functools.cache
def _members(cls: type) -> dict[str, Any]:
    """Methods and properties of the class and of those that it stands on, in our package."""
    found: dict[str, Any] = {}
    for of in cls.__mro__:
        if of.__module__.startswith("keras_mpt"):
            for name, item in vars(of).items():
                item = getattr(item, "__func__", item)
                if not name.startswith("_") and _is_called(name, item):
                    found.setdefault(name, item)
    return found


def _is_called(name: str, item: Any) -> bool:
    """Whether a user calls it: not what Keras calls, and has described, itself."""
    if not isinstance(item, property) and not inspect.isfunction(item):
        return False
    return name not in KERAS or "Args:" in (item.__doc__ or "")


def is_described(item: Any) -> bool:
    """Whether it has a docstring of its own; constants cannot have one."""
    return isinstance(item, str) or bool((getattr(item, "__doc__", None) or "").strip())


class Public(Directive):
    """A public name, and of a class all that `public_names` has under it."""

    required_arguments = 1

    def run(self) -> list[Any]:
        """Has autodoc write it."""
        from docutils import nodes

        full = self.arguments[0]
        item = public_names()[full]
        if not inspect.isclass(item):
            lines = [f".. autofunction:: {full}"]
        else:
            members = [n.rpartition(".")[2] for n in public_names() if n.startswith(f"{full}.")]
            lines = [f".. autoclass:: {full}"]
            if members:
                lines += [f"   :members: {', '.join(members)}", "   :member-order: bysource"]
        node = nodes.section()
        nested_parse_with_titles(self.state, StringList(lines, source=full), node)
        return node.children


def _check(app: Any, env: Any) -> None:
    """An error for each public name that no page of the reference has, or without a docstring."""
    logger = logging.getLogger(__name__)
    objects = env.get_domain("py").objects
    for name, item in public_names().items():
        if name not in objects:
            logger.warning("%s is public and on no page of docs/api/", name)
        if not is_described(item):
            logger.warning("%s is public and has no docstring", name)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_directive("public", Public)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True}
