"""Ways to train, as objects, and the callbacks that they use.

`few_shot()` is for a new task with a few rows of each class, `paper()` is how the paper trains.
Each is a `Recipe`: change one with `dataclasses.replace`.
"""

from __future__ import annotations

from typing import Any

from keras_mpt.checks import check_choice
from keras_mpt.training.best_weights import BestWeights
from keras_mpt.training.recipe import Recipe
from keras_mpt.training.schedule import WarmupDecay
from keras_mpt.training.stops import StepLimit, StopWhenLearned

__all__ = [
    "BestWeights",
    "Recipe",
    "StepLimit",
    "StopWhenLearned",
    "WarmupDecay",
    "few_shot",
    "paper",
]

# Of the size of what is trained, which a step of Adam moves by about its rate: see `paper`.
_SHARED = 0.03
_FACTORS = {"sources": 0.03, "target": 0.04}


def few_shot(steps: int = 60, **arguments: Any) -> Recipe:
    """A recipe for a new task with a few rows of each class, such as `adapt` is for.

    Adam at 0.01 for P, 0.1 for the factors and 0.01 for heads, falling to 0 in a line; batches of
    32. The rates are those that scored best with 16 rows of each class on MiniLM, whose token
    embeddings are near 0.05 in size, of 0.001 to 0.03 for P at ten times that for the factors
    (docs/studies/transfer). Where nothing is validated, which a few rows leave none for, training
    ends early once the loss of its own rows has been at most 0.05 in three epochs in a row: see
    `StopWhenLearned`. From scratch on MiniLM with 16 rows of each class (`cr` and `snips`, two
    seeds each, 300 test rows) that was after 25 steps on average, with an accuracy of 83.1% against
    82.1% after all 60, and in none of the four lower. Too few to tell apart there were a warm-up,
    the rates of `paper`, and a `RANDOM` start.

    Args:
        steps: int. Steps of the whole training, at most. Defaults to `60`.
        **arguments: further ones of `Recipe`, in the place of those above.

    Returns:
        A `keras_mpt.recipes.Recipe`.

    Raises:
        ValueError: an argument that is out of its range.

    Example:
        ```python
        recipe = keras_mpt.recipes.few_shot(steps=100, shared=0.003, factors=0.03)
        # model = keras_mpt.adapt("source", "irony", base=backbone, num_classes=2, recipe=recipe)
        # recipe.fit(model, {"text": texts, "task_ids": "irony"}, labels)
        assert (recipe.steps, recipe.batch_size, recipe.stop_loss) == (100, 32, 0.05)
        ```
    """
    return Recipe(**{"steps": steps, "stop_loss": 0.05, **arguments})


def paper(steps: int = 30_000, stage: str = "target", **arguments: Any) -> Recipe:
    """The paper's way to train, its numbers translated to models of any size.

    As in the paper and the code that it stands on (ATTEMPT's): batches of 32; Adam, gradients of a
    norm above 1 scaled down, rates that rise in a line and then fall to 0; prompts that start at
    random tokens of the vocabulary; the weights that validate best, by the mean over tasks. Source
    tasks are drawn in proportion to their rows, of which 2^18 count at most, and each batch holds a
    number of them that is drawn from 2 to all. `Distillation` has the paper's λ = 0.9 by itself;
    its hidden term is the paper's sum with `hidden_reduction="sum"`. 30,000 steps are Lester et
    al.'s; the paper's prompts have 100 tokens.

    What is translated: the paper trains P and the factors at 0.3 in the source stage, and at 0.3
    and 0.4 on a target, on T5, whose token embeddings, and with them P, are large numbers. A step
    of Adam moves each number by about its rate, so for a model whose token embeddings are of a size
    near 0.1 a rate of 0.3 would be noise. We take T5's to be of a size near 10, so the rate of P is
    0.03 of P's own size here (`relative=True`), and factors, which start at 1, have 0.03 and 0.04.
    These are near the rates that were found best: for sources on MiniLM (0.001 to 0.003 where P is
    near 0.05) and in trials on SmolLM2 (0.005 where it is 0.136).

    Args:
        steps: int. Steps of the whole training. Defaults to `30000`.
        stage: `"sources"`, for all source tasks together, or `"target"`, which has the two
            speeds. Defaults to `"target"`.
        **arguments: further ones of `Recipe`, in the place of those above.

    Returns:
        A `keras_mpt.recipes.Recipe`.

    Raises:
        ValueError: a stage that there is not, or an argument that is out of its range.

    Example:
        ```python
        recipe = keras_mpt.recipes.paper(steps=2000, stage="sources")
        datasets = {"tone": (["fine", "awful"], [1, 0]), "topic": (["goals"], [0])}
        mix = keras_mpt.TaskMix(datasets, **recipe.mix_arguments(datasets))
        # recipe.fit(keras_mpt.Distillation(student, "teachers"), mix, resume="run")
        assert (mix.weights, mix.max_tasks_per_batch) == ([2.0, 1.0], 2)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), sections 3 and 4; Asai et al. 2022 (arXiv
    2205.11961), and its code's settings, for warm-up, decay and clipping; Lester et al. 2021 (arXiv
    2104.08691) for the steps; Raffel et al. 2020 (arXiv 1910.10683), section 3.5.2, for 2^18.
    """
    check_choice("stage", stage, tuple(_FACTORS))
    own = {
        "steps": steps,
        "batch_size": 32,
        "shared": _SHARED,
        "factors": _FACTORS[stage],
        "relative": True,
        "warmup": 0.05,
        "global_clipnorm": 1.0,
        "weights": "proportional",
        "size_limit": 2**18,
        "sample_tasks": True,
    }
    return Recipe(**{**own, **arguments})
