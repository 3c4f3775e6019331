"""Whether the classes that a config names or words are those of the model."""

from __future__ import annotations

from typing import Any

from keras_mpt.checks import received
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.heads.head import FrozenHead, Head


def check_label_fields(
    model_inputs: ModelInputs, head: Head, num_classes: int | list[int] | None
) -> None:
    """Refuses `label_words` and `label_names` that a model cannot have.

    Args:
        model_inputs: the model's inputs, with the config in question.
        head: the model's head.
        num_classes: its number of classes, or each task's; `None` where it has none.

    Raises:
        ValueError: words for a model that does not answer in words, names for one without classes,
            as many names as there are no classes, or words that `LabelWords` refuses.
    """
    config = model_inputs.config
    if config.label_words and not isinstance(head, FrozenHead):
        if not head.has_classes:
            raise ValueError(
                "`label_words` should be in the config of a model that answers in words, for which "
                "keras-hub's task is given in the place of its backbone, such as a MaskedLM. "
                f"Received: label_words={received(config.label_words)} for a model without"
            )
        raise ValueError(
            "`label_words` should be left out of the config of a model that does not answer in "
            "words: `label_names` name the classes of a head. Received: "
            f"label_words={received(config.label_words)}"
        )
    if config.label_names and not head.has_classes:
        raise ValueError(
            "`label_names` should be left out of the config of a model without classes; a language "
            f"model has `label_words`. Received: label_names={received(config.label_names)}"
        )
    # Without a preprocessor a model may still be trained, on tokens that were made elsewhere.
    if config.label_words and model_inputs.preprocessor is not None:
        _ = model_inputs.label_words
    for task, names, count in _by_task(config, num_classes):
        if names is not None and len(names) != count:
            raise ValueError(
                f"`label_names` should be one per class, {count} of them{task}. Received: "
                f"label_names={received(names)}"
            )


def _by_task(config: PromptTuningConfig, num_classes: Any) -> list[tuple[str, Any, Any]]:
    """Each task in words, its names and its number of classes."""
    if not isinstance(config, MultitaskPromptTuningConfig):
        count = num_classes[0] if isinstance(num_classes, list) else num_classes
        return [("", config.label_names, count)]
    is_shared = not isinstance(num_classes, list)
    counts = [num_classes] * config.num_tasks if is_shared else num_classes
    given = config.label_names or {}
    return [
        (f" for task {n!r}", given.get(n), count)
        for n, count in zip(config.names, counts, strict=True)
    ]
