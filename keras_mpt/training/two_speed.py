"""An optimizer with a learning rate for P, one for the tasks' factors and one for the rest."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt.checks import is_number

# By the end of a variable's path, as a model may stand inside another one.
P_PATH = r"(.*/)?prompt_embeddings"
FACTORS_PATH = r"(.*/)?prefix_task_(cols|rows)"

_SCHEDULE = keras.optimizers.schedules.LearningRateSchedule
_WRAPPERS = (keras.optimizers.MultiOptimizer, keras.optimizers.LossScaleOptimizer)


def two_speed_optimizer(shared: Any = 0.01, factors: Any = 0.1, head: Any = 0.01) -> Any:
    """An optimizer that moves the shared prompt P slowly and the tasks' factors fast.

    A task's prompt is P ∘ (cols · rows). All tasks' gradients meet in P, while each task's factors
    see its own rows alone, so the paper adapts with a smaller rate for P than for the factors. Of a
    model's trained variables, `prompt_embeddings` is P, `prefix_task_cols` and `prefix_task_rows`
    are the factors, wherever the model stands, and all others go with the head.

    Each argument is a learning rate, a learning rate schedule, or an optimizer with whatever comes
    with it, such as weight decay. A rate or a schedule is Adam's. `0` or `None` leaves those
    variables exactly as they are: it is `SGD(0.0)`, which keeps no moments. Gradient clipping by a
    global norm counts each of the three groups by itself.

    The defaults are for new tasks with few rows: of 0.001, 0.003, 0.01 and 0.03 for P, with ten
    times that for the factors, they scored best on MiniLM with 16 rows per class and 30 steps, from
    sources without teachers (docs/studies/transfer). All source tasks together did best there at
    rates falling to 0 from 0.003 and 0.03, and with teachers from 0.001 and 0.01.

    A single rate is read and changed at `optimizer.optimizers`, in the order P, factors, head. A
    `MultiOptimizer` has no `learning_rate` of its own, which Keras's `LearningRateScheduler` and
    `ReduceLROnPlateau` ask for: use schedules.

    Args:
        shared: float, `keras.optimizers.schedules.LearningRateSchedule`, `keras.Optimizer` or
            `None`. For P. Defaults to `0.01`.
        factors: the same for the tasks' factors. Defaults to `0.1`.
        head: the same for everything else that is trained. Defaults to `0.01`.

    Returns:
        A `keras.optimizers.MultiOptimizer`. It is saved with a model, and `add_task` makes it anew,
        as it does with any optimizer.

    Raises:
        ValueError: a rate that is negative or not finite, an optimizer that holds others, or one
            optimizer given twice.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2
        )
        model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
        warm = keras.optimizers.schedules.CosineDecay(
            0.0, decay_steps=1000, warmup_target=0.01, warmup_steps=100
        )
        optimizer = keras_mpt.two_speed_optimizer(
            shared=0.002, factors=warm, head=keras.optimizers.AdamW(0.002, weight_decay=0.01)
        )
        model.compile(optimizer)
        p, factors, head = model.optimizer.optimizers
        p.learning_rate = 0.001
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 4.2, for two speeds.
    """
    given = {"shared": shared, "factors": factors, "head": head}
    p, fast, rest = (_optimizer(name, value) for name, value in given.items())
    if len({id(optimizer) for optimizer in (p, fast, rest)}) < 3:
        raise ValueError(
            "`shared`, `factors` and `head` should be optimizers of their own, as each has a state "
            "of its own. Received: one optimizer given twice"
        )
    paths = {P_PATH: p, FACTORS_PATH: fast}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(rest, paths))


def _optimizer(name: str, value: Any) -> Any:
    if isinstance(value, keras.Optimizer) and not isinstance(value, _WRAPPERS):
        return value
    if isinstance(value, _SCHEDULE):
        return keras.optimizers.Adam(value)
    rate = 0.0 if value is None else value
    if not is_number(rate) or rate < 0:
        raise ValueError(
            f"`{name}` should be a learning rate of at least 0, a LearningRateSchedule, an "
            f"optimizer for one group of variables, or None. Received: {name}={_shown(value)}"
        )
    adam, sgd = keras.optimizers.Adam, keras.optimizers.SGD
    return adam(float(rate)) if rate > 0 else sgd(0.0)


def _shown(value: Any) -> str:
    is_optimizer = isinstance(value, keras.Optimizer)
    return f"a {type(value).__name__}" if is_optimizer else repr(value)
