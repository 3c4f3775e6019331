"""The studies run on PyTorch, and what else is tested here needs no backend: once is enough."""

from pathlib import Path

import pytest

from tests.marks import only_torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(only_torch)
