"""The values that fields of a config may have, as PEFT names them."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Mapping
from typing import Any, Self

from keras_mpt.checks import check_keywords, is_integer, received


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


class KnownFields:
    """Refuses misspelt fields, with the nearest one that there is, and shows those that are set."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """A config's instance, if it has the fields that are given."""
        known = (f.name for f in dataclasses.fields(cls))  # type: ignore[arg-type]
        check_keywords(cls.__name__, kwargs, known)
        return super().__new__(cls)

    def __repr__(self) -> str:
        """What was set: fields that have their defaults are left out."""
        shown = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value != field.default and field.name != "peft_type":  # The class says it.
                value = value.value if isinstance(value, enum.Enum) else value
                shown.append(f"{field.name}={received(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def checked_task_names(names: Any, num_tasks: int) -> list[str] | None:
    """T different names, or `None`."""
    if names is None:
        return None
    if (
        not isinstance(names, (list, tuple))
        or not all(isinstance(n, str) and n for n in names)
        or not len(names) == len(set(names)) == num_tasks
    ):
        raise ValueError(
            f"`task_names` should be {num_tasks} different strings (num_tasks={num_tasks}). "
            f"Received: task_names={received(names)}"
        )
    for name in names:
        check_task_name("task_names", name)
    return list(names)


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
        raise ValueError(
            f"`{name}` should be one of {valid}. Received: {name}={received(value)}"
        ) from None


def checked_frozen_tasks(frozen: Any, names: list[str], train_shared: bool) -> list[str] | None:
    """The tasks that training leaves as they are, or `None`."""
    is_list = isinstance(frozen, (list, tuple))
    if frozen is not None and not (is_list and _are_all_in(frozen, names)):
        raise ValueError(
            f"`frozen_tasks` should be None or a list of the tasks {received(names)}. Received: "
            f"frozen_tasks={received(frozen)}"
        )
    if frozen and train_shared:
        raise ValueError(
            "`train_shared` should be False where tasks are frozen: they share P. Received: "
            f"train_shared=True with frozen_tasks={received(frozen)}"
        )
    return list(frozen) if frozen else None


def _are_all_in(given: Any, names: list[str]) -> bool:
    known = set(names)
    return all(isinstance(name, str) and name in known for name in given)


def check_text_start(fields: Mapping[str, Any]) -> None:
    """Refuses a `TEXT` start without a text, and what only such a start has, without one.

    Args:
        fields: mapping of a config's field to its value.
    """
    start, tokenizer_kwargs = fields["prompt_tuning_init"], fields["tokenizer_kwargs"]
    if start == PromptTuningInit.TEXT and fields["prompt_tuning_init_text"] is None:
        raise ValueError(
            "`prompt_tuning_init_text` should be given when prompt_tuning_init='TEXT'. "
            "Received: prompt_tuning_init_text=None"
        )
    if tokenizer_kwargs and start != PromptTuningInit.TEXT:
        raise ValueError(
            "`tokenizer_kwargs` should be given only with prompt_tuning_init='TEXT'. Received: "
            f"tokenizer_kwargs={tokenizer_kwargs} with prompt_tuning_init='{start}'"
        )


_TEXTS = (
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "prompt_tuning_init_text",
    "tokenizer_name_or_path",
    "prompt_tuning_init_state_dict_path",
)


def plain_values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are carried through, as JSON has them; paths become strings.

    Args:
        fields: mapping of a config's field to its value.

    Raises:
        ValueError: a field of another type.
    """
    found: dict[str, Any] = {}
    for name in _TEXTS:
        value = fields.get(name)
        text = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(text, (str, type(None))):
            raise _other_type(name, "a string", value)
        found[name] = text
    for name in ("auto_mapping", "tokenizer_kwargs"):
        found[name] = value = fields.get(name)
        is_dict = isinstance(value, dict) and all(isinstance(key, str) for key in value)
        if value is not None and not is_dict:
            raise _other_type(name, "a dict by strings", value)
    modules = fields.get("modules_to_save")
    is_list = isinstance(modules, (list, tuple)) and all(isinstance(m, str) for m in modules)
    if modules is not None and not is_list:
        raise _other_type("modules_to_save", "a list of strings", modules)
    found["modules_to_save"] = None if modules is None else list(modules)
    return {name: value for name, value in found.items() if name in fields}


def checked_seed(seed: Any) -> int | None:
    """A seed as Python's own integer."""
    if seed is not None and not is_integer(seed, least=0):
        raise ValueError(
            f"`seed` should be an integer, 0 or more, or None. Received: seed={received(seed)}"
        )
    return None if seed is None else int(seed)


def checked_submodules(submodules: Any) -> int | None:
    """M as Python's own integer."""
    if submodules is not None and not is_integer(submodules, 1, 3):
        raise ValueError(
            "`num_transformer_submodules` should be 1 (prompt the encoder, or the only stack) "
            "or 2 (prompt the decoder as well). Received: "
            f"num_transformer_submodules={received(submodules)}"
        )
    return None if submodules is None else int(submodules)


def checked_sources(sources: Any, num_tasks: int) -> Any:
    """`prompt_tuning_init_task`: a source task, or a list with one per target task."""
    is_list = isinstance(sources, (list, tuple))
    if is_list and len(sources) != num_tasks:
        raise ValueError(
            "`prompt_tuning_init_task` should be one source task, or a list with one per "
            f"target task (num_tasks={num_tasks}). Received: "
            f"prompt_tuning_init_task={received(sources)}"
        )
    given = list(sources) if is_list else [0 if sources is None else sources]
    # True and False are refused where the tasks are looked for.
    if not all(isinstance(source, (str, bool)) or is_integer(source) for source in given):
        raise _other_type("prompt_tuning_init_task", "tasks by name or id", sources)
    return list(sources) if is_list else sources


def _other_type(name: str, wanted: str, value: Any) -> ValueError:
    return ValueError(f"`{name}` should be {wanted}, or None. Received: {name}={received(value)}")
