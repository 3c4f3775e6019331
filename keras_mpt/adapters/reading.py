"""What an adapter's directory holds, read at one moment: config, our own fields, and weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mpt.adapters.head_names import output_weight
from keras_mpt.checks import is_integer, received
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.files.adapter_files import AdapterFiles, read_steadily
from keras_mpt.files.config_files import OWN_CONFIG_NAME
from keras_mpt.files.state_dict import by_own_names, checked_array
from keras_mpt.types import Config


@dataclasses.dataclass(frozen=True)
class Adapter:
    """What an adapter's directory holds.

    Attributes:
        source: string. The directory.
        config: its config.
        own: dict of keras_mpt's own fields, `None` where PEFT wrote it.
        state: dict of name to array.
    """

    source: str
    config: PromptTuningConfig
    own: Config | None
    state: Mapping[str, np.ndarray]

    @property
    def own_fields(self) -> Config:
        """Our own fields; none where PEFT wrote it."""
        return self.own or {}


def read_adapter(directory: str | os.PathLike[str]) -> Adapter:
    """Reads an adapter that PEFT or keras_mpt wrote, each file once, while others may write it.

    Its sizes are compared with the weights' shapes, so that nothing is made that they do not have.

    Args:
        directory: string.

    Raises:
        ValueError: a missing or broken file, files that do not belong together, fields of another
            type, or sizes that are not the weights'.
    """
    return read_steadily(directory, _parsed)


def has_adapter(directory: str | os.PathLike[str]) -> bool:
    """Whether a directory holds an adapter's config and weights, whatever is in them."""
    files = AdapterFiles.read(directory)
    return files.weights_name is not None and files.has_config


def _parsed(files: AdapterFiles) -> Adapter:
    config = PromptTuningConfig.from_files(files)
    adapter = Adapter(str(files.directory), config, files.fields()[1], by_own_names(files.state))
    _check_prompt(adapter)
    files.check_tied()
    _check_head(adapter)
    return adapter


def _check_prompt(adapter: Adapter) -> None:
    config, state = adapter.config, adapter.state
    for name, value in state.items():
        if not value.size:  # Its shape may say anything.
            raise ValueError(
                f"`{name}` in `{adapter.source}` should have numbers in it. Received: {name} of "
                f"shape {value.shape}"
            )
    length, width = config.total_virtual_tokens, config.token_dim
    found = state.get("prompt_embeddings")
    width = int(found.shape[-1]) if width is None and found is not None and found.ndim else width
    shapes: dict[str, tuple[Any, ...]] = {"prompt_embeddings": (length, width)}
    if isinstance(config, MultitaskPromptTuningConfig):
        shapes["prefix_task_cols"] = (config.num_tasks, length, config.num_ranks)
        shapes["prefix_task_rows"] = (config.num_tasks, config.num_ranks, width)
    missing = sorted(set(shapes) - set(state))
    if missing:
        raise ValueError(
            f"`{adapter.source}` should hold {sorted(shapes)}. Received: {adapter.source} without "
            f"{missing} and with {sorted(set(state) - set(shapes))[:8]}"
        )
    for name, shape in shapes.items():
        checked_array(name, state[name], shape, adapter.source)


def _check_head(adapter: Adapter) -> None:
    """Refuses sizes of a head that the weights do not have; what else it is, the model sees."""
    classes, output = adapter.own_fields.get("num_classes"), output_weight(dict(adapter.state))
    counts = classes if isinstance(classes, list) else [classes]
    if classes is not None and all(isinstance(n, int) for n in counts):
        rows = 0 if output is None else int(output[1].shape[0])
        if sum(counts) != rows:
            raise ValueError(
                f"`num_classes` in {OWN_CONFIG_NAME} should be those of the head beside it, {rows} "
                f"in all. Received: num_classes={received(classes)} in {adapter.source!r}"
            )
    head_config = adapter.own_fields.get("head_config")
    if head_config is not None and not isinstance(head_config, dict):
        raise ValueError(
            f"`head_config` in {OWN_CONFIG_NAME} should be a dict. Received: "
            f"head_config={received(head_config)} in {adapter.source!r}"
        )
    largest = max(n for value in adapter.state.values() for n in (1, *value.shape))
    for name, value in (head_config or {}).items():
        # A dict could name any function to be called.
        is_plain = value is None or isinstance(value, (bool, int, float, str))
        if not is_plain or is_integer(value, largest + 1):
            raise ValueError(
                f"`head_config` in {OWN_CONFIG_NAME} should have words, numbers and sizes of the "
                f"head beside it. Received: {name}={received(value)} in {adapter.source!r}"
            )
