"""An adapter's model card, in words: what it is, what it scored, and how it is opened."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from keras_mpt.adapters.measured import Measured
from keras_mpt.adapters.read_by_peft import read_differently
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.types import Config

# Of tasks, and of one task's classes, so many are listed; of a name so much is shown.
_MOST_TASKS, _MOST_LABELS, _LONGEST = 50, 20, 60
# A model on a hub, such as "bert-base-uncased" or "owner/name".
_ON_A_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class _Kind(NamedTuple):
    """What a task type is called elsewhere."""

    pipeline: str  # Among a hub's tasks.
    base: str  # In keras-hub.
    transformers: str


_KINDS = {
    TaskType.SEQ_CLS: _Kind(
        "text-classification", "the backbone", "AutoModelForSequenceClassification"
    ),
    TaskType.TOKEN_CLS: _Kind(
        "token-classification", "the backbone", "AutoModelForTokenClassification"
    ),
    TaskType.QUESTION_ANS: _Kind(
        "question-answering", "the backbone", "AutoModelForQuestionAnswering"
    ),
    TaskType.CAUSAL_LM: _Kind("text-generation", "a `CausalLM` on it", "AutoModelForCausalLM"),
    TaskType.SEQ_2_SEQ_LM: _Kind(
        "text2text-generation", "a `Seq2SeqLM` on it", "AutoModelForSeq2SeqLM"
    ),
    TaskType.FEATURE_EXTRACTION: _Kind("feature-extraction", "the backbone", "AutoModel"),
}
_MASKED = _Kind("fill-mask", "a `MaskedLM` on it", "AutoModelForMaskedLM")
_HERE = '"path/to/this/folder"'
_ROWS = "outputs = model(**inputs, task_ids=torch.tensor([0]))  # a task for each row"
# PEFT hands `task_ids` on to the base of these, which has none.
_NO_TASKS_IN_PEFT = (TaskType.QUESTION_ANS, TaskType.FEATURE_EXTRACTION)


class CardParts(NamedTuple):
    """What a card tells of.

    Attributes:
        config: the config as it is saved.
        head_settings: what the head is built with.
        model: string. The name of the model's class.
        is_masked: bool. Whether it is a masked language model, which PEFT has no task type for.
        backbone: what `backbone_identity` gives.
        numbers: mapping of a part of the adapter to how many numbers it has.
        weights: string. The weights' checksum.
        measured: the outcome of an `evaluate` of these weights, or `None`.
    """

    config: PromptTuningConfig
    head_settings: Mapping[str, Any]
    model: str
    is_masked: bool
    backbone: Config
    numbers: Mapping[str, int]
    weights: str
    measured: Measured | None


def model_card(parts: CardParts) -> str:
    """The card's text, Markdown under a hub's own fields.

    Args:
        parts: what it tells of.
    """
    kind = _MASKED if parts.is_masked else _KINDS.get(parts.config.task_type)  # type: ignore[call-overload]
    blocks = [
        _front_matter(parts.config, kind),
        f"# {_method(parts.config)} with keras_mpt",
        "What was trained on a frozen backbone, which is not in here.",
        _table([("", ""), *_facts(parts)]),
        *_tasks(parts),
        *_loading(parts, kind),
    ]
    return "\n\n".join(blocks) + "\n\n"


def _method(config: PromptTuningConfig) -> str:
    is_multitask = isinstance(config, MultitaskPromptTuningConfig)
    return "Multitask Prompt Tuning" if is_multitask else "Prompt tuning"


def _front_matter(config: PromptTuningConfig, kind: _Kind | None) -> str:
    """A hub's own fields, as YAML."""
    lines = ["library_name: keras_mpt"]
    name = _name_of_base(config)
    if name is not None:
        lines.append(f"base_model: {json.dumps(name)}")
    if kind is not None:
        lines.append(f"pipeline_tag: {kind.pipeline}")
    tags = ["keras", "peft", _method(config).lower().replace(" ", "-")]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _name_of_base(config: PromptTuningConfig) -> str | None:
    """The base's name on a hub. A path of this machine says nothing elsewhere."""
    name = config.base_model_name_or_path
    is_name = name and _ON_A_HUB.fullmatch(name) and not os.path.exists(name)
    return name if is_name else None


def _facts(parts: CardParts) -> list[tuple[str, str]]:
    config, backbone = parts.config, parts.backbone
    of = f"{_code(backbone['class_name'])}, {backbone['num_parameters']:,} numbers"
    name = _name_of_base(config)
    where = {
        "before": "before all tokens",
        "after_start": "after the start token",
        "after": "after the text, before its last token",
    }
    facts = [
        ("model", f"`keras_mpt.models.{parts.model}`"),
        ("base", f"{of}, {_code(name)}" if name else of),
        (
            "prompt",
            f"`num_virtual_tokens` {config.num_virtual_tokens}, of width {config.token_dim}"
            + (", for encoder and decoder each" if config.submodules > 1 else "")
            + (f"; {where[config.prompt_position]}" if config.prompt_position else ""),
        ),
    ]
    if isinstance(config, MultitaskPromptTuningConfig):
        facts.append(("tasks", f"{len(config.names)}, `num_ranks` {config.num_ranks}"))
    pooling = parts.head_settings.get("pooling")
    if pooling:
        facts.append(("pooling", _code(pooling)))
    total = sum(parts.numbers.values())
    each = ", ".join(f"{name} {count:,}" for name, count in parts.numbers.items())
    return [*facts, ("numbers", f"{total:,}: {each}"), ("weights", f"sha256 `{parts.weights}`")]


def _tasks(parts: CardParts) -> list[str]:
    """The tasks, what their classes are called, and what they scored."""
    config, measured = parts.config, parts.measured
    names = config.names if isinstance(config, MultitaskPromptTuningConfig) else None
    listed = [None] if names is None else names[:_MOST_TASKS]
    labels = [_labels(parts, k, name) for k, name in enumerate(listed)]
    metrics: list[str] = []
    if measured is not None:
        of_tasks = itertools.chain.from_iterable(measured.of_tasks.values())
        metrics = list(dict.fromkeys([*measured.logs, *of_tasks]))
    if names is None and not metrics and not labels[0]:
        return []
    rows = [("task", "classes", *metrics)]
    for k, name in enumerate(listed):
        own = {} if measured is None or name is None else measured.of_tasks.get(k, {})
        rows.append(("" if name is None else _code(name), labels[k], *_scores(own, metrics)))
    if measured is not None:
        # Of one prompt, that is the only row.
        rows[len(rows) - (names is None) :] = [
            ("all rows", labels[0] if names is None else "", *_scores(measured.logs, metrics))
        ]
    if not any(labels):
        rows = [(row[0], *row[2:]) for row in rows]
    found = ["## Tasks", _table(rows)]
    if names is not None and len(names) > len(listed):
        found.append(f"And {len(names) - len(listed):,} more tasks.")
    if measured is not None:
        over = "" if measured.rows is None else f" of {measured.rows:,} rows"
        found.append(
            f"The numbers are those of the last `evaluate`{over} before this adapter was saved, "
            "with these weights. Which data that were, the card does not know."
        )
    return found


def _labels(parts: CardParts, k: int, name: str | None) -> str:
    """A task's classes: their names or words, else how many there are."""
    for given in (parts.config.label_names, parts.config.label_words):
        own = given if name is None else (given or {}).get(name)
        if own:
            more = [f"… ({len(own)} in all)"] if len(own) > _MOST_LABELS else []
            return ", ".join([*map(_code, own[:_MOST_LABELS]), *more])
    counts = parts.head_settings.get("num_classes")
    count = counts[k] if isinstance(counts, list) else counts
    return "" if count is None else str(count)


def _loading(parts: CardParts, kind: _Kind | None) -> list[str]:
    """How both libraries open it."""
    config, base = parts.config, _code(parts.backbone["class_name"])
    on = "" if kind is None or kind.base == "the backbone" else f", or {kind.base}"
    load = f"load_adapter(base, {_HERE}, preprocessor=preprocessor)"
    found = [
        "## In keras_mpt",
        _python("import keras_mpt", "", f"model = keras_mpt.{load}"),
        f"`base` is the {base} that it was trained on{on}, and `preprocessor` keras-hub's for it.",
        "## In PEFT",
    ]
    if kind is None:
        return [*found, "The adapter has no `task_type`, by which PEFT would know its base."]
    is_multitask = isinstance(config, MultitaskPromptTuningConfig)
    if is_multitask and config.task_type in _NO_TASKS_IN_PEFT:
        return [
            *found,
            f"PEFT gives models of this task type, {config.task_type}, no `task_ids`, and fails. "
            "In keras_mpt `model.fold(task)` makes a model of one task, whose adapter PEFT opens.",
        ]
    counts = parts.head_settings.get("num_classes")
    classes = sum(counts) if isinstance(counts, list) else counts
    labels = "" if classes is None else f", num_labels={classes}"
    found.append(
        _python(
            "import peft",
            *(["import torch"] if is_multitask else []),
            "import transformers",
            "",
            f"base = transformers.{kind.transformers}.from_pretrained(name_of_base{labels})",
            f"model = peft.PeftModel.from_pretrained(base, {_HERE})",
            *([_ROWS] if is_multitask else []),
        )
    )
    different = read_differently(config, parts.head_settings)
    return [*found, *([] if different is None else [different])]


def _scores(of: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return [f"{of[name]:.4g}" if name in of else "" for name in names]


def _python(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, whose first row is its head."""
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in map(_cells, ruled))


def _cells(row: Iterable[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in row]


def _code(value: Any) -> str:
    """A name between backticks, in which nothing in it is markup; strings of spaces keep them."""
    text = str(value)
    text = text if text.isprintable() and text == text.strip() and text else repr(text)
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    gap = " " if "`" in text else ""
    return f"{fence}{gap}{text}{gap}{fence}"
