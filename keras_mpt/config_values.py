"""The values that fields of a config may have, as PEFT names them."""

from __future__ import annotations

import enum
from typing import Any


class PeftType(enum.StrEnum):
    """The PEFT methods that keras_mpt reads and writes (`peft.PeftType`).

    Example:
        ```python
        keras_mpt.PeftType("PROMPT_TUNING")
        ```
    """

    PROMPT_TUNING = "PROMPT_TUNING"
    MULTITASK_PROMPT_TUNING = "MULTITASK_PROMPT_TUNING"


class TaskType(enum.StrEnum):
    """What the tuned model is for (`peft.TaskType`).

    Example:
        ```python
        keras_mpt.TaskType("SEQ_CLS")
        ```
    """

    SEQ_CLS = "SEQ_CLS"
    SEQ_2_SEQ_LM = "SEQ_2_SEQ_LM"
    CAUSAL_LM = "CAUSAL_LM"
    TOKEN_CLS = "TOKEN_CLS"
    QUESTION_ANS = "QUESTION_ANS"
    FEATURE_EXTRACTION = "FEATURE_EXTRACTION"


class PromptTuningInit(enum.StrEnum):
    """How an ordinary soft prompt starts (`peft.PromptTuningInit`).

    `TEXT`: the embeddings of a text. `SAMPLE_VOCAB`: the embeddings of random tokens. `RANDOM`: a
    normal draw at the scale of the token embedding.

    Example:
        ```python
        keras_mpt.PromptTuningInit("SAMPLE_VOCAB")
        ```
    """

    TEXT = "TEXT"
    SAMPLE_VOCAB = "SAMPLE_VOCAB"
    RANDOM = "RANDOM"


class MultitaskPromptTuningInit(enum.StrEnum):
    """How a multitask prompt starts (`peft.MultitaskPromptTuningInit`, and `SAMPLE_VOCAB`).

    The last three start from an adapter trained on source tasks: the mean of its tasks' factors,
    one source task's factors, or its shared prompt alone.

    Example:
        ```python
        keras_mpt.MultitaskPromptTuningInit("AVERAGE_SOURCE_TASKS")
        ```
    """

    TEXT = "TEXT"
    RANDOM = "RANDOM"
    SAMPLE_VOCAB = "SAMPLE_VOCAB"
    AVERAGE_SOURCE_TASKS = "AVERAGE_SOURCE_TASKS"
    EXACT_SOURCE_TASK = "EXACT_SOURCE_TASK"
    ONLY_SOURCE_SHARED = "ONLY_SOURCE_SHARED"


SOURCE_INITS = frozenset(
    {
        MultitaskPromptTuningInit.AVERAGE_SOURCE_TASKS,
        MultitaskPromptTuningInit.EXACT_SOURCE_TASK,
        MultitaskPromptTuningInit.ONLY_SOURCE_SHARED,
    }
)

# The fields of a config whose start is done: the weights hold what came of it, and RANDOM needs
# neither text nor file.
START_DONE = {
    "prompt_tuning_init": "RANDOM",
    "prompt_tuning_init_text": None,
    "tokenizer_name_or_path": None,
    "tokenizer_kwargs": None,
}
# The same of a multitask prompt.
TASKS_START_DONE = {
    **START_DONE,
    "prompt_tuning_init_task": 0,
    "prompt_tuning_init_state_dict_path": None,
}


def check_task_name(argument: str, name: str) -> None:
    """Refuses names under which a task's logs would be taken for those of validation data."""
    if name == "val" or name.startswith("val_"):
        raise ValueError(
            f"`{argument}` should not be 'val' or begin with 'val_', as Keras's logs of validation "
            f"data do. Received: {argument} with {name!r}"
        )


def member(enumeration: Any, name: str, value: Any) -> Any:
    """The enum's member for `value` (a member of a sister enum, or a string, will do)."""
    try:
        return enumeration(value.value if isinstance(value, enum.Enum) else value)
    except ValueError:
        valid = ", ".join(repr(str(m)) for m in enumeration)
        raise ValueError(f"`{name}` should be one of {valid}. Received: {name}={value!r}") from None


def checked_frozen_tasks(frozen: Any, names: list[str], train_shared: bool) -> list[str] | None:
    """The tasks that training leaves as they are, or `None`."""
    is_list = isinstance(frozen, (list, tuple))
    if frozen is not None and not (is_list and all(name in names for name in frozen)):
        raise ValueError(
            f"`frozen_tasks` should be None or a list of the tasks {names}. Received: "
            f"frozen_tasks={frozen!r}"
        )
    if frozen and train_shared:
        raise ValueError(
            "`train_shared` should be False where tasks are frozen: they share P. Received: "
            f"train_shared=True with frozen_tasks={frozen!r}"
        )
    return list(frozen) if frozen else None
