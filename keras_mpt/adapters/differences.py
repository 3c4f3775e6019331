"""Whether an adapter is for a model: what differs between the two, if anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_mpt.config import PromptTuningConfig

# What must be the same, in the order in which a difference is named.
_FIELDS = (
    "peft_type",
    "task_type",
    "prompt_position",
    "num_virtual_tokens",
    "num_transformer_submodules",
    "token_dim",
    "num_tasks",
    "num_ranks",
)


class Difference(NamedTuple):
    """A field by its name, what the model has there, and what the adapter has."""

    name: str
    wanted: Any
    found: Any


def config_difference(
    wanted: PromptTuningConfig, found: PromptTuningConfig, ignoring: tuple[str, ...] = ()
) -> Difference | None:
    """The first field in which two configs cannot stand for each other.

    Args:
        wanted: the model's config, or that of a model to be: what is `None` there is left open.
        found: the adapter's; what is `None` there it does not say.
        ignoring: names of fields that may differ. Defaults to `()`.
    """
    for name in _FIELDS:
        pair = [_field(config, name) for config in (wanted, found)]
        if name not in ignoring and None not in pair and pair[0] != pair[1]:
            return Difference(name, *pair)
    return None


def head_difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Difference | None:
    """The first setting in which two heads differ, whose weights may have the same shapes.

    Classes of [2, 3] and [3, 2], or a mean over tokens and a start token.

    Args:
        wanted: settings of the model's head by name.
        found: keras_mpt's own fields of the adapter; PEFT's adapters say nothing of their head.
    """
    for name, value in wanted.items():
        if name in found and found[name] != value:
            return Difference(name, value, found[name])
    return None


def _field(config: PromptTuningConfig, name: str) -> Any:
    if name == "num_transformer_submodules":
        return config.submodules
    return getattr(config, name, None)
