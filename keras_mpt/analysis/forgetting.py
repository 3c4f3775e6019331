"""What tasks lost since they were at their best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from keras_mpt.analysis.task_logs import tasks_and_measures

Scores = Mapping[str, float]


def task_scores(results: Scores, metric: str = "accuracy") -> dict[str, float]:
    """Each task's score among the results of `evaluate`.

    Args:
        results: dict, as `evaluate(…, return_dict=True)` gives it.
        metric: string. Which of the loss and the metrics. Defaults to `"accuracy"`.

    Returns:
        A dict of task name to float.

    Raises:
        ValueError: results that hold no task's metric of that name.

    Example:
        ```python
        results = {"loss": 0.4, "tone_loss": 0.5, "topic_loss": 0.3}
        scores = keras_mpt.analysis.task_scores(results, metric="loss")
        assert scores == {"tone": 0.5, "topic": 0.3}
        ```
    """
    tasks, measures = tasks_and_measures(results)
    if metric not in measures:
        raise ValueError(
            f"`results` should hold {metric!r} and each task's, such as 'tone_{metric}'. Received: "
            f"results with {list(results)}"
        )
    # Tasks that are measured by other metrics have none.
    names = {task: f"{task}_{metric}" for task in tasks}
    return {task: float(results[name]) for task, name in names.items() if name in results}


def forgetting(
    earlier: Scores | Sequence[Scores], now: Scores, mode: str = "max"
) -> dict[str, float]:
    """How far each task is below its best earlier score: max_l a_l − a_now.

    It is negative for a task that is better than ever. Earlier scores that are NaN do not count.

    Args:
        earlier: dict of task name to score, or a list of such dicts: before tasks were added, or
            after each stage of training.
        now: dict of task name to score.
        mode: `"max"`, or `"min"` for a score that is better when smaller, such as a loss: then
            a_now − min_l a_l. Defaults to `"max"`.

    Returns:
        A dict of task name to float, for the tasks with a score earlier and now.

    Raises:
        ValueError: another `mode`, or no task with a score both earlier and now.

    Example:
        ```python
        earlier = [{"tone": 0.9, "topic": 0.5}, {"tone": 0.8, "topic": 0.7}]
        lost = keras_mpt.analysis.forgetting(earlier, {"tone": 0.6, "topic": 0.8, "new": 0.9})
        assert abs(lost["tone"] - 0.3) < 1e-9 and abs(lost["topic"] + 0.1) < 1e-9
        ```

    Source: Chaudhry et al. 2018 (arXiv 1801.10112), section 3.
    """
    best = best_scores(earlier, now, mode)
    sign = 1 if mode == "max" else -1
    return {task: sign * (score - now[task]) for task, score in best.items()}


def best_scores(
    earlier: Scores | Sequence[Scores], now: Scores, mode: str = "max"
) -> dict[str, float]:
    """The best earlier score of each task that has one now, in the order of `now`.

    Args:
        earlier: as in `forgetting`.
        now: as in `forgetting`.
        mode: as in `forgetting`. Defaults to `"max"`.

    Returns:
        A dict of task name to float.
    """
    if mode not in ("max", "min"):
        raise ValueError(f"`mode` should be 'max' or 'min'. Received: mode={mode!r}")
    stages = [earlier] if isinstance(earlier, Mapping) else list(earlier)
    best = {}
    for task in now:
        scores = [float(stage[task]) for stage in stages if task in stage]
        scores = [score for score in scores if not math.isnan(score)]
        if scores:
            best[task] = max(scores) if mode == "max" else min(scores)
    if not best:
        raise ValueError(
            "`earlier` should have scores of tasks that `now` has too. Received: earlier with "
            f"{sorted({task for stage in stages for task in stage})} and now with {list(now)}"
        )
    return best
