"""Where a prompt stands by default."""

from __future__ import annotations

from typing import Any

from keras_mpt.types import Backbone, Task


def default_prompt_position(backbone: Backbone) -> str:
    """`"after_start"` for encoders, so that index 0 stays the start token; else `"before"`.

    A backbone counts as an encoder where it has one token input and keras-hub has no language model
    that continues text with it.
    """
    token_inputs = [t for t in backbone.inputs if t.name.endswith("token_ids")]
    if len(token_inputs) > 1 or task_class("CausalLM", backbone) is not None:
        return "before"
    return "after_start"


def task_class(name: str, backbone: Backbone) -> type[Task] | None:
    """keras-hub's class for a task on this backbone, or `None`.

    Args:
        name: "CausalLM", "Seq2SeqLM", "MaskedLM" or "TextClassifier".
        backbone: a `keras_hub.models.Backbone`.
    """
    import keras_hub

    found = [c for c in _subclasses(getattr(keras_hub.models, name)) if _is_for(c, backbone)]
    # A backbone may have several: Gemma4AssistantCausalLM drafts for Gemma4CausalLM and is no model
    # of its own. The main one bears the backbone's name.
    main = type(backbone).__name__.removesuffix("Backbone") + name
    return next((c for c in found if c.__name__ == main), found[0] if found else None)


def _is_for(task: type[Task], backbone: Backbone) -> bool:
    return task.backbone_cls is not None and type(backbone) is task.backbone_cls


def _subclasses(base: Any) -> list[Any]:
    return [c for sub in base.__subclasses__() for c in (sub, *_subclasses(sub))]
