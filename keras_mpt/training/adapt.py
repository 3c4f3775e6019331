"""Target adaptation: new tasks on what the source tasks have learned."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

from keras_mpt.checks import check_size
from keras_mpt.config import MultitaskPromptTuningConfig
from keras_mpt.config_labels import checked_labels_of_tasks, with_tasks
from keras_mpt.config_values import TASKS_START_DONE
from keras_mpt.heads.num_classes import in_order, is_listed
from keras_mpt.models.prompt_tune import load_adapter
from keras_mpt.models.prompt_tuned_backbone import PromptTunedBackbone
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.models.tasks import arguments_for, factors_from, multitask_config, source_of
from keras_mpt.prompts.starts import with_more_ranks
from keras_mpt.training.choosing import CHOSEN, NEAREST, losses, nearness
from keras_mpt.training.recipe import Recipe, check_recipe
from keras_mpt.types import Backbone, Config, NumClasses, Task

M = TypeVar("M", bound=PromptTunedModel)


@overload
def adapt(
    source: M,
    tasks: str | Sequence[str],
    *,
    base: Backbone | Task | None = None,
    num_classes: NumClasses | Sequence[int | None] | None = None,
    from_: str | int | Sequence[str | int | None] | None = "average",
    train_shared: bool = True,
    num_ranks: int | None = None,
    label_words: Mapping[str, list[str]] | None = None,
    label_names: Mapping[str, list[str]] | None = None,
    data: Mapping[str, tuple[Any, ...]] | None = None,
    probe_epochs: int = 10,
    verbose: str | int = "auto",
    recipe: Recipe | None = None,
    **kwargs: Any,
) -> M: ...


@overload
def adapt(
    source: str | os.PathLike[str],
    tasks: str | Sequence[str],
    *,
    base: Backbone | Task | None = None,
    num_classes: NumClasses | Sequence[int | None] | None = None,
    from_: str | int | Sequence[str | int | None] | None = "average",
    train_shared: bool = True,
    num_ranks: int | None = None,
    label_words: Mapping[str, list[str]] | None = None,
    label_names: Mapping[str, list[str]] | None = None,
    data: Mapping[str, tuple[Any, ...]] | None = None,
    probe_epochs: int = 10,
    verbose: str | int = "auto",
    recipe: Recipe | None = None,
    **kwargs: Any,
) -> PromptTunedModel: ...


def adapt(
    source: PromptTunedModel | str | os.PathLike[str],
    tasks: str | Sequence[str],
    *,
    base: Backbone | Task | None = None,
    num_classes: NumClasses | Sequence[int | None] | None = None,
    from_: str | int | Sequence[str | int | None] | None = "average",
    train_shared: bool = True,
    num_ranks: int | None = None,
    label_words: Mapping[str, list[str]] | None = None,
    label_names: Mapping[str, list[str]] | None = None,
    data: Mapping[str, tuple[Any, ...]] | None = None,
    probe_epochs: int = 10,
    verbose: str | int = "auto",
    recipe: Recipe | None = None,
    **kwargs: Any,
) -> PromptTunedModel:
    """A model for new tasks that starts from what source tasks have learned.

    P is the source's. Each new task's factors start as the average of the sources', as one source's
    or as those of the source task that is nearest, or has the lowest loss. A classifier's head
    starts fresh, but for layers below its output, which are the source's. Without `num_classes` it
    is that of the source task that is named, or the one that all sources share. The model is
    compiled with the recipe's optimizer, so `fit`, or `recipe.fit`, trains it at once, with the
    task's loss alone. The source stays as it is.

    Where a source task has the same classes in the same order, such as the sentiment of other
    texts, name it and leave out `num_classes`: the new task starts with all that it has learned,
    and predicts before it has seen a row.

    The nearest source task is found by a probe: factors trained on the new task's `data` for
    `probe_epochs` from the average, P frozen. Compared are the ways in which the probe's prompt and
    each source's prompt differ from the average one, by their cosine. The source task with the
    lowest loss is found without training: the new task's `data` are evaluated under each source's
    prompt, for the cost of a forward pass each. What answers in words shows by that which source
    has the same answers, or like ones; a classifier's head is fresh, so that its loss tells
    nothing. What was found is printed, and kept in `model.adapted_from` and
    `model.source_similarities` or `model.source_losses`.

    Args:
        source: a prompt-tuned model with tasks, or the directory of its adapter.
        tasks: string or list of strings. The new tasks' names.
        base: a keras-hub backbone or task, where `source` is a directory. Defaults to `None`.
        num_classes: for classifiers: an int for one new task, or a list with one per task or a dict
            by their names; or int for a head that they share, where the source's tasks share
            theirs. Defaults to `None`, also in the list: the head of the task that `from_` names,
            or that all sources share.
        from_: `"average"`, `"nearest"`, `"lowest_loss"`, `"shared"` (cols · rows = 1), a source
            task's name or id, or a list of these with one per new task. Defaults to `"average"`.
        train_shared: bool. Whether P is trained on. Frozen, a new task costs L·r + r·d numbers.
            Defaults to `True`, as in the paper.
        num_ranks: int. R of the new tasks' factors, at least the source's, so that they can learn
            more where P is frozen. Those added leave the start as it is: their rows are 0, and the
            prompt's tokens are dealt out to them. Defaults to `None`: the source's.
        label_words: dict of new task name to list of strings, as in the config. Defaults to `None`.
        label_names: the same; where a head is copied from a task, `None` copies that task's too.
            Defaults to `None`.
        data: dict of new task name to `(x, y)`, for `"nearest"` and `"lowest_loss"`. Defaults to
            `None`.
        probe_epochs: int. Defaults to `10`.
        verbose: as in `keras.Model.fit`, for the probe. Defaults to `"auto"`.
        recipe: a `keras_mpt.recipes.Recipe`, such as `keras_mpt.recipes.few_shot()`, that the model
            is compiled by. Defaults to `None`: `Recipe()`, the rates of `two_speed_optimizer()`,
            which do not fall.
        **kwargs: further arguments of the model, such as `preprocessor`.

    Returns:
        A compiled model of the source's class, whose tasks are the new ones. Its `adapted_from` is
        a dict of task name to where its factors came from.

    Raises:
        ValueError: a source that has no tasks or is a directory without `base`, an unknown source
            task, a source to be found without data, by a probe that does not move or by the loss
            of a fresh head, fewer ranks than the source has, or classes that are missing.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["tone", "topic"]
        )
        source = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
        ids = np.array([[2, 5, 6, 3], [2, 7, 8, 3]])
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": 0 * ids}
        model = keras_mpt.adapt(source, "irony", num_classes=2, from_="tone")
        model.fit({**x, "task_ids": "irony"}, np.array([0, 1]), verbose=0)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3.3; Vu et al. 2022 (arXiv 2110.07904) for
    prompts' similarity.
    """
    source = _opened(source, base)
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    if not names:
        raise ValueError("`tasks` should be the name of a new task, or several. Received: tasks=[]")
    starts = list(from_) if isinstance(from_, (list, tuple)) else [from_] * len(names)
    if len(starts) != len(names):
        raise ValueError(
            f"`from_` should be one start, or a list with one per task of {names}. Received: "
            f"from_={from_!r}"
        )
    for name, start in zip(names, starts, strict=True):
        if start not in CHOSEN:
            source_of(source, start)
        elif name not in (data or {}):
            raise ValueError(
                f"`data` should have (x, y) of each task with from_={start!r}. Received: none for "
                f"task {name!r}"
            )
        elif start != NEAREST and (
            source.head.has_classes or isinstance(source, PromptTunedBackbone)
        ):
            raise ValueError(
                "`from_` should be 'nearest', or a source task's name, for a model that does not "
                f"answer in words: a fresh head's loss tells nothing. Received: from_={start!r} "
                f"for task {name!r}"
            )
    probe_epochs = check_size("probe_epochs", probe_epochs)
    ranks = _ranks(source, num_ranks)
    recipe = Recipe() if recipe is None else check_recipe(recipe)
    classes, heads = _heads(source, names, starts, num_classes)
    given = {"label_words": label_words, "label_names": label_names}
    labels = {field: checked_labels_of_tasks(field, own, names) for field, own in given.items()}
    similarities: dict[str, dict[str, float]] = {}
    by_loss: dict[str, dict[str, float]] = {}
    for k, (name, start) in enumerate(zip(names, starts, strict=True)):
        if start in CHOSEN:
            assert data is not None
            one = classes[k : k + 1] if isinstance(classes, list) else classes
            head = heads[k : k + 1]
            own = _ranks(source, None), Recipe(), labels, kwargs
            probe = _adapted(source, [name], ["average"], one, head, False, *own)
            if start == NEAREST:
                found = nearness(source, probe, name, data[name], probe_epochs, verbose)
                starts[k], what = max(found, key=found.__getitem__), "nearest source task is"
                similarities[name] = found
            else:
                found = losses(source, probe, name, data[name])
                starts[k], what = min(found, key=found.__getitem__), "lowest loss is that of"
                by_loss[name] = found
            if verbose:
                shown = ", ".join(f"{task} {value:.3f}" for task, value in found.items())
                print(f"{name}: the {what} {starts[k]} ({shown})", flush=True)
    model = _adapted(
        source, names, starts, classes, heads, train_shared, ranks, recipe, labels, kwargs
    )
    model.adapted_from = {n: _named(source, s) for n, s in zip(names, starts, strict=True)}
    model.source_similarities, model.source_losses = similarities, by_loss
    return model


def _opened(source: Any, base: Backbone | Task | None) -> PromptTunedModel:
    if isinstance(source, (str, os.PathLike)):
        if base is None:
            raise ValueError(
                "`base` should be the backbone of the adapter where `source` is a directory. "
                "Received: base=None"
            )
        source = load_adapter(base, source)
    if not isinstance(getattr(source, "config", None), MultitaskPromptTuningConfig):
        raise ValueError(
            "`source` should be a prompt-tuned model with tasks, or the directory of its adapter. "
            f"Received: source={source!r}"
        )
    return source


def _ranks(source: PromptTunedModel, num_ranks: int | None) -> int:
    own: int = multitask_config(source).num_ranks
    if num_ranks is None:
        return own
    if check_size("num_ranks", num_ranks) < own:
        raise ValueError(
            f"`num_ranks` should be at least the source's, {own}. Received: num_ranks={num_ranks!r}"
        )
    return int(num_ranks)


def _heads(
    source: Any, names: list[str], starts: list[Any], num_classes: Any
) -> tuple[Any, list[int | None]]:
    """What the new model's constructor takes, and whose head each task gets; `None`: a fresh one.

    The former is `None` too where the model has no classes to choose. A head that all sources share
    is any one's.
    """
    fresh: list[int | None] = [None] * len(names)
    shared: list[int | None] = [0] * len(names)
    if not source.head.has_classes:
        if num_classes is not None:
            raise ValueError(
                "`num_classes` should be left out: the source is no classifier. Received: "
                f"num_classes={num_classes!r}"
            )
        return None, shared
    num_classes = in_order(num_classes, names)
    own, is_list = source.head.num_classes, is_listed(num_classes)
    if isinstance(own, int) and not is_list:
        return (own, shared) if num_classes is None else (num_classes, fresh)
    classes = list(num_classes) if is_list else [num_classes] * len(names)
    if len(classes) != len(names):
        raise ValueError(
            f"`num_classes` should have an entry per task of {names}. Received: "
            f"num_classes={num_classes!r}"
        )
    heads = list(fresh)
    for task, (name, start) in enumerate(zip(names, starts, strict=True)):
        if classes[task] is None:
            # A probe for the nearest task has to know the classes beforehand.
            k = start if start in CHOSEN else source_of(source, start)
            if isinstance(k, str) or isinstance(own, int):
                raise ValueError(
                    f"`num_classes` should be given for task {name!r}: only from_=<a source task> "
                    "brings a head along, where the sources have one each. Received: "
                    f"num_classes={num_classes!r} with from_={start!r}"
                )
            classes[task], heads[task] = own[k], k
    return classes, heads


def _adapted(
    source: Any,
    names: list[str],
    starts: list[Any],
    classes: Any,
    heads: list[int | None],
    train_shared: bool,
    num_ranks: int,
    recipe: Recipe,
    labels: Config,
    kwargs: Any,
) -> PromptTunedModel:
    """A model of these tasks; `starts` are what `add_task` takes."""
    labels = with_tasks(labels, {name: name for name in names})
    if isinstance(source.head.num_classes, list):  # The classes are copied with their head.
        of_sources = source.config.label_names or {}
        copied = {
            n: source.config.names[h] for n, h in zip(names, heads, strict=True) if h is not None
        }
        own = {name: of_sources.get(task) for name, task in copied.items()}
        labels["label_names"] = {**own, **labels["label_names"]}
    config = dataclasses.replace(
        source.config,
        num_tasks=len(names),
        task_names=names,
        train_shared=train_shared,
        num_ranks=num_ranks,
        frozen_tasks=None,
        inference_mode=False,
        **labels,
        **TASKS_START_DONE,
    )
    arguments = arguments_for(source, range(source.prompt.num_tasks))
    if classes is not None:
        arguments["num_classes"] = classes
    model = type(source)(source.backbone, config, **{**arguments, **kwargs}, initialize=False)
    factors = factors_from(source, [source_of(source, start) for start in starts])
    cols, rows = with_more_ranks(*factors, config.num_ranks)
    shared = source.prompt.get_peft_state_dict()["prompt_embeddings"]
    state = {"prompt_embeddings": shared, "prefix_task_cols": cols, "prefix_task_rows": rows}
    model.prompt.set_peft_state_dict(state, "source")
    source.head.copy_to(model.head, heads)
    if not isinstance(source, PromptTunedBackbone):
        model.compile(**recipe.compile_arguments(model))
    return model


def _named(source: Any, start: Any) -> str:
    start = source_of(source, start)
    return multitask_config(source).names[start] if isinstance(start, int) else start
