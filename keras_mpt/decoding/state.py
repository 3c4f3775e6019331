"""What goes between the steps of decoding, as named types.

They are nests of tensors, so a compiled function takes and gives them: `()` stands where there is
nothing, as no backend's loop carries a `None`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras_mpt.types import Tensor


class RowPrompts(NamedTuple):
    """What a batch's rows have in front of their text.

    Attributes:
        tasks: int array. Each row's task (B,), or the batch's different ones (K,) where `rows` says
            which of them each row has; `()` without tasks.
        rows: int array (B,), or `()`.
        caches: what is kept after each of the K prompts, a nest of tensors (K, …), or `()`.
        table: float tensor (B, R, M·d). Of rows that hold their prompt as ids, what these stand
            for (`VirtualIds`); `()` where they do not.
    """

    tasks: Any
    rows: Any = ()
    caches: Any = ()
    table: Any = ()

    @property
    def task_ids(self) -> Tensor | None:
        """`tasks`, or `None` without tasks."""
        return None if isinstance(self.tasks, tuple) else self.tasks


class OneText(NamedTuple):
    """Which of B equally long rows have the same text.

    Attributes:
        rows: int array (U,). A row of each different text.
        of_rows: int array (B,). Which of these texts each row has.
        length: int array (). How many tokens they have.
    """

    rows: Any
    of_rows: Any
    length: Any


class Context(NamedTuple):
    """What stands beside the text that is continued.

    Attributes:
        prompts: the rows' prompts.
        others: the backbone's other inputs by name, such as an encoder's, each (B, S).
        text: which rows have the same text, where prompts stand after it; `()` elsewhere.
    """

    prompts: RowPrompts
    others: dict[str, Any]
    text: Any = ()


class Beginnings(NamedTuple):
    """R beginnings of continuations, behind the text of rows that are equally long.

    Attributes:
        rows: int array (R,). Each one's row.
        text: int array (R, …). What is run of these rows.
        start: int array (). How long the rows' text is.
        tokens: int array (R, n). The beginnings, padded on the right.
        next: int array (R, n, G). What comes after each token in G continuations.
        sizes: int array (R, G). How many tokens each of those has after its first.
    """

    rows: Any
    text: Any
    start: Any
    tokens: Any
    next: Any
    sizes: Any


class Rows(NamedTuple):
    """Rows whose text is read for continuations to be scored.

    Attributes:
        text_ids: int array (B, S), padded on the right.
        last: int array (B,). Each row's last token.
        first: int array (B, C). The first token of each of its continuations.
        context: what stands before the text.
    """

    text_ids: Any
    last: Any
    first: Any
    context: Context


class Batch(NamedTuple):
    """What one compiled call is given.

    Attributes:
        token_ids: int array (B, S), with room for new tokens.
        mask: int array (B, S), 1 at the tokens that are given.
        text_ids: int array (B, N). The columns to read at once; what comes after them comes token
            by token.
        context: what stands before the text.
    """

    token_ids: Any
    mask: Any
    text_ids: Any
    context: Context
