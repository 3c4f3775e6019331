"""The documentation site: what Sphinx needs to build it from docs/ and the docstrings."""
