"""What is known of a model before it is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from keras_mpt.fitting.losses import Kind


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a model before it is compiled.

    Attributes:
        names: the tasks' names; none where there are no tasks.
        classes: int, a list with each task's number of classes, or `None` where there are none.
        gives_logits: bool. Whether outputs are logits; else nothing is known of them.
        ignored: int. The label that does not count, or `None`.
        kinds: the kinds of targets that there can be.
        reduction: how the default loss makes one number of many.
        several_per_row: bool. Whether a row has several targets, such as one per token.
    """

    names: Sequence[str]
    classes: int | Sequence[int] | None = None
    gives_logits: bool = True
    ignored: int | None = None
    kinds: frozenset[Kind] = frozenset(Kind)
    reduction: str = "sum_over_batch_size"
    several_per_row: bool = False

    @property
    def of_tasks(self) -> list[int | None]:
        """Each task's number of classes: one entry where there are no tasks."""
        if self.classes is None or isinstance(self.classes, int):
            return [self.classes] * max(len(self.names), 1)
        return list(self.classes)

    @property
    def differ(self) -> bool:
        """Whether tasks have different numbers of classes."""
        return len(set(self.of_tasks)) > 1
