"""What `score` is given: candidates in their forms, as tokens, and how the work is divided."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from keras_mpt.checks import check_token_ids, check_utf8, is_integer
from keras_mpt.fitting.label_words import LabelWords
from keras_mpt.fitting.text import tokens_alone
from keras_mpt.types import Preprocessor


@dataclasses.dataclass(frozen=True)
class Candidates:
    """C continuations for all rows, or up to C for each row.

    Attributes:
        given: the candidates as they came: one list for all rows, or one per row.
        token_ids: int32 array, (1 or B, C, N), padded with zeros on the right.
        lengths: int32 array, (1 or B, C). How many tokens each has; 0 where a row has no such one.
        of_rows: whether there is a list per row.
    """

    given: list[list[Any]]
    token_ids: np.ndarray
    lengths: np.ndarray
    of_rows: bool

    def __len__(self) -> int:
        """C."""
        return int(self.token_ids.shape[1])

    @property
    def longest(self) -> int:
        """N, the tokens of the longest."""
        return int(self.token_ids.shape[2])

    @property
    def are_there(self) -> np.ndarray:
        """Which rows have which, bool (1 or B, C)."""
        return self.lengths > 0

    def lists_of(self, rows: np.ndarray) -> np.ndarray:
        """Which list each of some rows has, int (N,)."""
        return rows if self.of_rows else np.zeros_like(rows)

    def key_of(self, which: int) -> bytes:
        """What two lists have alike if they hold the same candidates.

        Lengths are in it: what a shorter one is padded with may be a longer one's token.
        """
        return self.token_ids[which].tobytes() + self.lengths[which].tobytes()

    def repeated(self, rows: np.ndarray) -> Candidates:
        """The lists of some rows, one for each of them."""
        lists = self.lists_of(rows)
        given = [self.given[k] for k in lists]
        return Candidates(given, self.token_ids[lists], self.lengths[lists], True)

    def best(self, scores: np.ndarray) -> list[str] | np.ndarray:
        """Each row's likeliest candidate as it came, or its index where it came as token ids."""
        none = np.flatnonzero(np.isneginf(scores).all(axis=1))
        if none.size:
            raise ValueError(
                "`candidates` should have one of a probability above 0 for each row. Received: "
                f"candidates of which none has, in {none.size} rows, the first of them row "
                f"{none[0]}"
            )
        best = scores.argmax(axis=1)
        if not isinstance(self.given[0][0], str):
            return best
        return [self.given[row if self.of_rows else 0][which] for row, which in enumerate(best)]

    def check_rows(self, rows: int) -> None:
        """Refuses lists for another number of rows."""
        if self.of_rows and len(self.given) != rows:
            raise ValueError(
                f"`candidates` should have one list per row, {rows} of them, or be one list for "
                f"all rows. Received: {len(self.given)} lists"
            )


def as_candidates(
    candidates: Any, preprocessor: Preprocessor | None, vocabulary_size: int
) -> Candidates:
    """Candidates as tokens.

    Args:
        candidates: list of strings or of lists of token ids, or a list of such lists.
        preprocessor: keras-hub preprocessor whose tokenizer is asked, or `None`.
        vocabulary_size: int. V.

    Raises:
        ValueError: no candidates, other things than these, candidates without tokens, strings
            without a tokenizer, token ids outside [0, V), or lists of different lengths.
    """
    of_rows = not all(_is_candidate(c) for c in _listed(candidates))
    given = [_listed(c) for c in candidates] if of_rows else [_listed(candidates)]
    if any(not _is_candidate(c) for row in given for c in row) or not all(given):
        raise _not_candidates(candidates)
    if len({isinstance(c, str) for row in given for c in row}) > 1:
        raise _not_candidates(candidates)
    if len({len(row) for row in given}) > 1:
        raise ValueError(
            "`candidates` should have as many candidates for each row. Received: lists of lengths "
            f"{[len(row) for row in given]}"
        )
    tokens = [[_tokens(c, preprocessor) for c in row] for row in given]
    lengths = np.asarray([[len(t) for t in row] for row in tokens], "int32")
    if not lengths.all():
        row, which = np.argwhere(lengths == 0)[0]
        raise ValueError(
            "`candidates` should have at least one token each. Received: candidates with "
            f"{given[row][which]!r}, which has none"
        )
    ids = np.zeros((*lengths.shape, int(lengths.max())), "int64")
    for place in np.ndindex(*lengths.shape):
        ids[place][: lengths[place]] = tokens[place[0]][place[1]]
    check_token_ids("candidates", ids, vocabulary_size)
    return Candidates(given, ids.astype("int32"), lengths, of_rows)


def words_of_rows(words: LabelWords, task_ids: np.ndarray | None, rows: int) -> Candidates:
    """Each row's own task's words.

    Args:
        words: the tasks' words.
        task_ids: int array (B,), or `None` without tasks.
        rows: int. B.

    Raises:
        ValueError: a row of a task that has no words.
    """
    tasks = words.tasks_of_rows(task_ids, rows)
    given = [words.words[k] for k in tasks]
    classes = max(map(len, given))
    sizes = words.sizes[tasks, :classes]
    # Other tasks' longer words ask for no room.
    return Candidates(given, words.token_ids[tasks, :classes, : sizes.max()], sizes, True)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, np.ndarray)) else []


def _is_candidate(value: Any) -> bool:
    """A string, or a sequence of integers; one without any is an empty candidate."""
    if isinstance(value, str):
        return True
    return isinstance(value, (list, tuple, np.ndarray)) and all(map(is_integer, value))


def _tokens(candidate: Any, preprocessor: Preprocessor | None) -> np.ndarray:
    if not isinstance(candidate, str):
        # An integer that no array holds is no token either.
        most = np.iinfo("int64").max
        return np.asarray([min(max(int(i), -1), most) for i in candidate], "int64")
    if preprocessor is None:
        raise ValueError(
            "`candidates` should be lists of token ids where the model has no preprocessor to "
            f"tokenize strings. Received: candidates with {candidate!r}"
        )
    return tokens_alone(preprocessor, check_utf8("candidates", candidate))


def _not_candidates(candidates: Any) -> ValueError:
    return ValueError(
        "`candidates` should be a list of strings or of lists of token ids, for all rows, or a "
        f"list with one such list per row. Received: candidates={candidates!r}"
    )
