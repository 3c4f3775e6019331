"""Whether all logits that tokens were drawn from were numbers, at no wait for the device.

A sampler draws a token from NaN as well, mostly token 0. Its loop carries the cache from token to
token, and so a mark for each row beside it; the mark is read after the loop.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from keras_mpt.decoding.sampler_steps import SamplerSteps
from keras_mpt.types import Sampler, Tensor, Tensors

NextLogits = Callable[[Tensor, Any, Tensor], tuple[Tensor, Tensor, Any]]


class Watched(NamedTuple):
    """A decoder's cache, and the mark.

    Attributes:
        cache: the cache.
        is_right: int tensor (B,), 1 where all of a row's logits were numbers.
    """

    cache: Any
    is_right: Any


def watching(next_logits: NextLogits) -> NextLogits:
    """A decoder's `next_logits` on a `Watched` cache: wrong logits are marked, and zero."""

    def watched(token_ids: Tensor, seen: Watched, index: Tensor) -> tuple[Tensor, Tensor, Watched]:
        logits, states, cache = next_logits(token_ids, seen.cache, index)
        is_right = _are_numbers(logits)
        # A sampler may fail on NaN in its own way.
        logits = ops.where(is_right[:, None], logits, ops.zeros_like(logits))
        return logits, states, Watched(cache, seen.is_right * ops.cast(is_right, "int32"))

    return watched


def draw(
    sampler: Sampler,
    next_logits: NextLogits,
    cache: Tensors,
    steps: SamplerSteps | None = None,
    first: Tensor | None = None,
    **arguments: Any,
) -> Any:
    """Draws tokens.

    Args:
        sampler: a keras-hub sampler.
        next_logits: a decoder's.
        cache: its cache.
        steps: how steps run without Keras. Defaults to `None`: as they are.
        first: float tensor (B, V). The logits of the first token, where they were read with the
            text. Defaults to `None`.
        **arguments: the sampler's other ones.

    Returns:
        What the sampler gives; and an int tensor (B,) or (B · beams,), the marks.
    """
    rows = ops.shape(arguments["prompt"])[0]
    seen = Watched(cache, ops.ones((rows,), "int32"))
    marks: list[Tensor] = []
    # With the sampler's own settings and seeds, and a loop of which we see the end.
    view = copy.copy(sampler)
    watched = watching(next_logits)
    known = None if first is None else watching(lambda ids, cache, index: (first, first, cache))

    following = [watched if steps is None else steps.next(sampler, watched)]

    def run_loop(cond: Any, body: Any, **kwargs: Any) -> Any:
        run = sampler.run_loop
        if steps is not None:
            run = steps.loop(sampler, watched, known)
        elif known is not None:
            following.append(known)
            kwargs |= _one_step(cond, body, kwargs)
            following.pop()
        loop_vars = run(cond, body, **kwargs)
        marks.extend(v.is_right for v in loop_vars if isinstance(v, Watched))
        return loop_vars

    view.run_loop = run_loop
    made = view(next=lambda *given: following[-1](*given), cache=seen, **arguments)
    return made, marks[0] if marks else seen.is_right


def _one_step(cond: Any, body: Any, loop: dict[str, Any]) -> dict[str, Any]:
    """What is left of a sampler's loop after its first step, which runs before it.

    Args:
        cond: the loop's, as `Sampler.run_loop` takes it.
        body: likewise.
        loop: dict of its `loop_vars` and `maximum_iterations`.
    """
    before = loop["loop_vars"]
    goes_on, after = cond(*before), body(*before)
    chosen = [
        ops.where(goes_on, new, old) if ops.is_tensor(new) else new
        for new, old in zip(after, before, strict=True)
    ]
    left = ops.cast(loop["maximum_iterations"], "int32") - 1
    return {"loop_vars": tuple(chosen), "maximum_iterations": left}


def _are_numbers(logits: Tensor) -> Tensor:
    """Where a row's logits (B, V) give probabilities, (B,): −∞ is one of 0, if not all are."""
    # Both: XLA's maximum leaves out NaN on a CPU.
    has_maximum = ops.isfinite(ops.max(logits, axis=-1))
    return ops.logical_and(has_maximum, ops.logical_not(ops.any(ops.isnan(logits), axis=-1)))
