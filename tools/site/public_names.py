"""That the site has all that a user may call. A Sphinx extension.

`.. public:: keras_mpt.TaskMix` on a page of docs/api/ puts a name there, of a class with its
methods. A name that is on no page, or says nothing of itself, is an error of the build.
"""

from __future__ import annotations

import inspect
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.util import logging
from sphinx.util.nodes import nested_parse_with_titles

from tools.site.names import is_described, public_names


class Public(Directive):
    """A public name, and of a class all that `public_names` has under it."""

    required_arguments = 1

    def run(self) -> list[Any]:
        """Has autodoc write it."""
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
