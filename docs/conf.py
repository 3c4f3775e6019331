"""Sphinx's settings for `make docs`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_mpt.version import __version__  # noqa: E402

project = "keras_mpt"
author = "The keras-mpt authors"
copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "tools.site.docstrings",
    "tools.site.links",
    "tools.site.notebooks",
    "tools.site.public_names",
]
exclude_patterns = ["_build"]
# Every reference must lead somewhere; with -W, one that does not ends the build.
nitpicky = True

autodoc_typehints = "none"  # Types are said in the docstrings' own words.
autodoc_class_signature = "mixed"
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 4

# `make guides` runs them, and keeps what came out.
nb_execution_mode = "off"
nb_merge_streams = True
# `make links` looks for links alone, and warns of outputs that it knows no order of.
nb_mime_priority_overrides = [("linkcheck", kind, 0) for kind in ("text/plain", "image/png")]

html_theme = "furo"
html_title = f"keras_mpt {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
