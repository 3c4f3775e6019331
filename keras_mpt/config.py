"""Configurations, with PEFT's field names, defaults and rules.

Read and written as PEFT's `adapter_config.json` (see `keras_mpt.files.config_files`).
"""

from __future__ import annotations

import dataclasses
import enum
import os
from typing import Any, ClassVar, Self

from keras_mpt.checks import check_flag, check_size, received
from keras_mpt.config_labels import LABEL_FIELDS, checked_labels, checked_labels_of_tasks
from keras_mpt.config_values import (
    SOURCE_INITS,
    KnownFields,
    MultitaskPromptTuningInit,
    PeftType,
    PromptTuningInit,
    TaskType,
    check_text_start,
    checked_frozen_tasks,
    checked_seed,
    checked_sources,
    checked_submodules,
    checked_task_names,
    member,
    plain_values,
)
from keras_mpt.files import config_files
from keras_mpt.files.adapter_files import AdapterFiles, read_steadily

# What keras_mpt adds to PEFT's fields. PEFT warns of keys that it does not know, so these are
# kept in a file of our own beside `adapter_config.json`.
OWN_FIELDS = (
    "frozen_tasks",
    *LABEL_FIELDS,
    "prompt_position",
    "seed",
    "task_init",
    "task_names",
    "train_shared",
)


_OPTIONAL_SIZES = ("token_dim", "num_attention_heads", "num_layers")


@dataclasses.dataclass(kw_only=True, repr=False)
class PromptTuningConfig(KnownFields):
    """One soft prompt in front of a frozen backbone: PEFT's `PromptTuningConfig`.

    Args:
        task_type: `TaskType` or its string. Defaults to `None`.
        peft_type: set by itself; a value for another method is refused. Defaults to `None`.
        auto_mapping: dict. PEFT's, carried through untouched. Defaults to `None`.
        peft_version: string. PEFT's, carried through untouched. Defaults to `None`.
        base_model_name_or_path: string. Name of the backbone, carried through. Defaults to `None`.
        revision: string. PEFT's, carried through untouched. Defaults to `None`.
        inference_mode: bool. If `True` the prompt is built frozen. Defaults to `False`.
        num_virtual_tokens: int. Length of the prompt, L. It must be given. Defaults to `None`.
        token_dim: int. Width of the token embedding, d. Taken from the backbone where `None`.
            Defaults to `None`.
        num_transformer_submodules: 1 or 2. M: 2 also prompts the decoder of an encoder-decoder.
            `None` means 2 for `SEQ_2_SEQ_LM`, else 1, as in PEFT. Defaults to `None`.
        num_attention_heads: int. For PEFT's use; filled in on saving. Defaults to `None`.
        num_layers: int. For PEFT's use; filled in on saving. Defaults to `None`.
        modules_to_save: list of strings. Names of the heads that PEFT finds in the adapter.
            Defaults to `None`.
        prompt_tuning_init: `PromptTuningInit` or its string. Defaults to `"RANDOM"`.
        prompt_tuning_init_text: string. The text of a `TEXT` start. Defaults to `None`.
        tokenizer_name_or_path: string. A Hugging Face tokenizer for a `TEXT` start. Where `None`,
            the keras-hub tokenizer given to the model is used. Defaults to `None`.
        tokenizer_kwargs: dict. Arguments for that Hugging Face tokenizer. Defaults to `None`.
        prompt_position: `"before"` (PEFT's), `"after_start"` (after the start token, so that index
            0 stays `[CLS]`), `"after"` (of causal language models: after the text, before its last
            token, from which the answer is read; see docs/architecture.md), or `None`:
            `"after_start"` for encoders, else `"before"`. Ours, not PEFT's. Defaults to `None`.
        seed: int. Seed of a random start; `None` follows `keras.utils.set_random_seed`. Ours, not
            PEFT's. Defaults to `None`.
        label_words: list of strings, one per class: what a language model answers, such as
            `[" bad", " good"]`. Ours. Defaults to `None`.
        label_names: list of strings, one per class of a model with a head. Ours. Defaults to
            `None`.

    Raises:
        ValueError: a field that PEFT's rules refuse, by name.

    Example:
        ```python
        config = keras_mpt.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=20)
        ```

    Source: PEFT `tuners/prompt_tuning/config.py`.
    """

    task_type: TaskType | str | None = None
    peft_type: PeftType | str | None = None
    auto_mapping: dict[str, Any] | None = None
    peft_version: str | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    inference_mode: bool = False
    num_virtual_tokens: int | None = None
    token_dim: int | None = None
    num_transformer_submodules: int | None = None
    num_attention_heads: int | None = None
    num_layers: int | None = None
    modules_to_save: list[str] | None = None
    prompt_tuning_init: PromptTuningInit | MultitaskPromptTuningInit | str = "RANDOM"
    prompt_tuning_init_text: str | None = None
    tokenizer_name_or_path: str | None = None
    tokenizer_kwargs: dict[str, Any] | None = None
    prompt_position: str | None = None
    seed: int | None = None
    # One list; by tasks a dict of them.
    label_words: Any = None
    label_names: Any = None

    _peft_type: ClassVar[PeftType] = PeftType.PROMPT_TUNING
    _init_enum: ClassVar[Any] = PromptTuningInit

    def __post_init__(self) -> None:
        self._check_prompt()
        self.check_labels()

    def check_labels(self) -> None:
        """Refuses words and names of classes that are none; they may have been changed since."""
        for field in LABEL_FIELDS:
            setattr(self, field, checked_labels(field, getattr(self, field)))

    def _check_prompt(self) -> None:
        """Refuses what no prompt is, be it of one task or of several."""
        if self.task_type is not None:
            self.task_type = member(TaskType, "task_type", self.task_type)
        if self.peft_type is None:
            self.peft_type = self._peft_type
        self.peft_type = member(PeftType, "peft_type", self.peft_type)
        if self.peft_type != self._peft_type:
            raise ValueError(
                f"`peft_type` should be '{self._peft_type}' for {type(self).__name__}; it sets "
                f"itself. Received: peft_type={str(self.peft_type)!r}"
            )
        self.prompt_tuning_init = member(
            self._init_enum, "prompt_tuning_init", self.prompt_tuning_init
        )
        for name, value in plain_values(vars(self)).items():
            setattr(self, name, value)
        self._check_sizes("num_virtual_tokens")
        given = [n for n in _OPTIONAL_SIZES if getattr(self, n) is not None]
        self._check_sizes(*given)
        # PEFT takes `None` for False.
        mode = self.inference_mode
        self.inference_mode = mode is not None and check_flag("inference_mode", mode)
        self.seed = checked_seed(self.seed)
        self.num_transformer_submodules = checked_submodules(self.num_transformer_submodules)
        if self.prompt_position not in (None, "before", "after_start", "after"):
            raise ValueError(
                "`prompt_position` should be 'before', 'after_start', 'after' or None. Received: "
                f"prompt_position={received(self.prompt_position)}"
            )
        check_text_start(vars(self))

    def _check_sizes(self, *names: str) -> None:
        """Refuses other values than sizes, and keeps NumPy's as Python's, which JSON takes."""
        for name in names:
            setattr(self, name, check_size(name, getattr(self, name)))

    @property
    def submodules(self) -> int:
        """M: `num_transformer_submodules`, or what PEFT takes where it is `None`."""
        if self.num_transformer_submodules is not None:
            return self.num_transformer_submodules
        return 2 if self.task_type == TaskType.SEQ_2_SEQ_LM else 1

    @property
    def total_virtual_tokens(self) -> int:
        """M·L: the rows of the prompt."""
        assert self.num_virtual_tokens is not None
        return self.submodules * self.num_virtual_tokens

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values, PEFT's and ours.

        Returns:
            A dict; `type(config)(**config.to_dict())` equals the config.
        """
        values = dataclasses.asdict(self)
        for name in ("frozen_tasks", *LABEL_FIELDS):
            if not values.get(name, True):
                del values[name]  # As before there were any.
        return {k: str(v) if isinstance(v, enum.Enum) else v for k, v in values.items()}

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Writes `adapter_config.json` as PEFT does, and our own fields in a file beside it.

        Args:
            save_directory: string. The directory, made where it is missing.

        Raises:
            ValueError: a directory with an adapter's weights, which another config would make
                unreadable.

        Example:
            ```python
            config = keras_mpt.PromptTuningConfig(num_virtual_tokens=20)
            config.save_pretrained(tmp_path)
            ```
        """
        config_files.write_config(save_directory, *self.split_fields())

    @classmethod
    def from_pretrained(cls, save_directory: str | os.PathLike[str]) -> Self:
        """Reads a config from a directory that PEFT or keras_mpt wrote.

        The class follows the file's `peft_type`. Keys that are not known are warned of and left
        out. A config without keras_mpt's own file comes from PEFT, and so takes PEFT's meaning:
        `prompt_position="before"`, `task_init="normal"`.

        Args:
            save_directory: string. The directory with `adapter_config.json`.

        Returns:
            A `PromptTuningConfig` or `MultitaskPromptTuningConfig`.

        Raises:
            ValueError: no such file, broken JSON, another method, or a field out of range.

        Example:
            ```python
            keras_mpt.PromptTuningConfig(num_virtual_tokens=20).save_pretrained(tmp_path)
            config = keras_mpt.PromptTuningConfig.from_pretrained(tmp_path)
            ```
        """

        def parse(files: AdapterFiles) -> PromptTuningConfig:
            found = cls.from_files(files)
            files.check_tied()
            return found

        config = read_steadily(save_directory, parse)
        assert isinstance(config, cls)
        return config

    @classmethod
    def from_files(cls, files: AdapterFiles) -> Self:
        """As `from_pretrained`, of files that were read; whether they belong together is not seen.

        Args:
            files: a directory's `AdapterFiles`.
        """
        values, own = files.fields()
        peft_type = member(PeftType, "peft_type", values.get("peft_type"))
        found = _CLASSES[peft_type]
        if not issubclass(found, cls):
            raise ValueError(
                f"`save_directory` should hold a config of {cls.__name__}. Received: "
                f"save_directory={str(files.directory)!r} with peft_type={str(peft_type)!r}"
            )
        if own is None:
            own = {"prompt_position": "before", "task_init": "normal"}
        names = {f.name for f in dataclasses.fields(found)}
        own_known = {k: v for k, v in own.items() if k in names and k in OWN_FIELDS}
        known = config_files.keep_known(values, names - set(OWN_FIELDS), found.__name__)
        return found(**known, **own_known)

    def split_fields(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """PEFT's fields and ours, apart.

        Returns:
            `(peft_fields, own_fields)`, two dicts of JSON values.
        """
        values = self.to_dict()
        own = {k: values.pop(k) for k in OWN_FIELDS if k in values}
        return values, own


@dataclasses.dataclass(kw_only=True, repr=False)
class MultitaskPromptTuningConfig(PromptTuningConfig):
    """A shared prompt and two thin factors per task: PEFT's `MultitaskPromptTuningConfig`.

    Task k's prompt is `P ∘ (cols_k · rows_k)`: P is (M·L, d), cols_k (M·L, R), rows_k (R, d).

    How this differs from PEFT: `SAMPLE_VOCAB` is a start too; `task_init`, `task_names`,
    `train_shared`, `frozen_tasks`, `label_words`, `label_names`, `prompt_position` and `seed` are
    ours; `AVERAGE_SOURCE_TASKS` and `EXACT_SOURCE_TASK` fill any number of target tasks, where PEFT
    fills one.

    Args:
        task_type, peft_type, auto_mapping, peft_version, base_model_name_or_path, revision,
            inference_mode, num_virtual_tokens, token_dim, num_transformer_submodules,
            num_attention_heads, num_layers, modules_to_save, prompt_tuning_init_text,
            tokenizer_name_or_path, tokenizer_kwargs, prompt_position, seed: as in
            `PromptTuningConfig`.
        prompt_tuning_init: `MultitaskPromptTuningInit` or its string. Defaults to `"RANDOM"`.
        prompt_tuning_init_state_dict_path: string. File or directory of the source adapter, for the
            three starts from source tasks. Defaults to `None`.
        prompt_tuning_init_task: int, task name, or a list of them with one entry per target task:
            the source of `EXACT_SOURCE_TASK`. Defaults to `0`.
        num_ranks: int. R, the rank of a task's factors. Defaults to `1`.
        num_tasks: int. T. Defaults to `1`.
        task_init: `"ones"` starts every task's factors so that cols · rows = 1 and its prompt *is*
            P; `"normal"` is PEFT's N(0, 0.02) for both factors. Ours. Defaults to `"ones"`.
        task_names: list of T strings. Names under which logs appear and that `task_ids` may use.
            Ours. Defaults to `None` ("task_0", "task_1", …).
        train_shared: bool. Whether P is trained with the factors; `model.train_shared` changes it
            later. Ours. Defaults to `True`.
        frozen_tasks: list of task names. Those that training leaves as they are, to the bit, with
            all that tasks share; `add_task(…, train_shared=False)` sets it. Ours. Defaults to
            `None`.
        label_words: dict of task name to list of strings, for some tasks or all: the words that
            stand for the task's classes where a language model answers, such as
            `{"tone": [" bad", " good"]}`. Each is tokenized by itself and put right behind the
            input; no two of a task begin with the same token. Ours. Defaults to `None`.
        label_names: dict of task name to list of strings: names of the classes of models with a
            head. Ours. Defaults to `None`.

    Raises:
        ValueError: a field that PEFT's rules refuse, by name.

    Example:
        ```python
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS",
            num_virtual_tokens=20,
            num_tasks=3,
            task_names=["sentiment", "topic", "intent"],
            prompt_tuning_init="SAMPLE_VOCAB",
        )
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3; PEFT
    `tuners/multitask_prompt_tuning/config.py`.
    """

    prompt_tuning_init_state_dict_path: str | None = None
    prompt_tuning_init_task: int | str | list[int | str] | None = 0
    num_ranks: int = 1
    num_tasks: int = 1
    task_init: str = "ones"
    task_names: list[str] | None = None
    train_shared: bool = True
    frozen_tasks: list[str] | None = None

    _peft_type = PeftType.MULTITASK_PROMPT_TUNING
    _init_enum = MultitaskPromptTuningInit

    def __post_init__(self) -> None:
        self._check_prompt()
        self._check_sizes("num_ranks", "num_tasks")
        if self.task_init not in ("ones", "normal"):
            raise ValueError(
                "`task_init` should be 'ones' (a prompt starts as P) or 'normal' (PEFT's). "
                f"Received: task_init={received(self.task_init)}"
            )
        self.train_shared = check_flag("train_shared", self.train_shared)
        needs_source = self.prompt_tuning_init in SOURCE_INITS
        if needs_source and self.prompt_tuning_init_state_dict_path is None:
            raise ValueError(
                "`prompt_tuning_init_state_dict_path` should be the source adapter's file or "
                f"directory when prompt_tuning_init='{self.prompt_tuning_init}'. Received: "
                "prompt_tuning_init_state_dict_path=None"
            )
        sources = checked_sources(self.prompt_tuning_init_task, self.num_tasks)
        self.prompt_tuning_init_task = sources
        self.task_names = checked_task_names(self.task_names, self.num_tasks)
        frozen = checked_frozen_tasks(self.frozen_tasks, self.names, self.train_shared)
        self.frozen_tasks = frozen
        self.check_labels()

    def check_labels(self) -> None:
        """Refuses words and names of classes that are none, or of tasks that are not there."""
        for field in LABEL_FIELDS:
            setattr(self, field, checked_labels_of_tasks(field, getattr(self, field), self.names))

    @property
    def names(self) -> list[str]:
        """The T tasks' names: `task_names`, or "task_0", "task_1", …"""
        return self.task_names or [f"task_{k}" for k in range(self.num_tasks)]


_CLASSES: dict[PeftType, type[PromptTuningConfig]] = {
    PeftType.PROMPT_TUNING: PromptTuningConfig,
    PeftType.MULTITASK_PROMPT_TUNING: MultitaskPromptTuningConfig,
}


def config_from_dict(values: dict[str, Any]) -> PromptTuningConfig:
    """The config that `to_dict` gave `values` of.

    Args:
        values: dict of fields, `peft_type` among them.

    Returns:
        A `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
    """
    return _CLASSES[member(PeftType, "peft_type", values.get("peft_type"))](**values)
