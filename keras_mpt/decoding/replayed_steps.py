"""The steps of loops on PyTorch: recorded at first, then replayed without Keras.

Keras takes longer to find out what to compute for one more token than PyTorch takes to compute it,
and what it asks for copies all keys and values several times. The first two steps of their shapes
run as they are and are recorded, the third runs both ways, and from then on they are replayed.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from keras_mpt.types import Tensor

# How many steps are kept, each of one sampler and one size: those used last.
MOST_STEPS = 32
Step = Callable[[int, Sequence[Tensor]], Sequence[Tensor]]

_log = logging.getLogger(__name__)


class ReplayedSteps:
    """Steps that were recorded.

    Weights are read where they lie, so that a step sees them change; whoever puts other variables
    in their place calls `forget`.
    """

    def __init__(self) -> None:
        self._steps: OrderedDict[Hashable, ReplayedStep] = OrderedDict()
        self._has_warned = False

    def __len__(self) -> int:
        return len(self._steps)

    def forget(self) -> None:
        """Forgets all."""
        self._steps.clear()

    def of(self, key: Hashable, given: Sequence[Tensor], is_placed: bool = True) -> ReplayedStep:
        """A step for such tensors.

        Args:
            key: what step it is.
            given: list of tensors. What it is given.
            is_placed: bool. Whether it is taken at several places. Defaults to `True`.
        """
        sizes = tuple((tuple(t.shape), t.dtype, t.device) for t in given)
        key = (key, _state())
        found = self._steps.setdefault((key, sizes), ReplayedStep(self._warn, is_placed))
        self._steps.move_to_end((key, sizes))
        while len(self._steps) > MOST_STEPS:
            self._steps.popitem(last=False)
        return found

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning("A step of `generate` runs through Keras, which is slower: %s.", reason)


class ReplayedStep:
    """A step of some sizes: what was recorded of it, or that it cannot be.

    Args:
        warn: function of why it cannot be.
        is_placed: bool. Whether it is taken at several places.
    """

    def __init__(self, warn: Callable[[str], None], is_placed: bool) -> None:
        self._warn, self._is_placed = warn, is_placed
        self._first: Any = None
        # For whoever takes the step.
        self.note: Any = None
        self.replay: Any = None
        self.is_checked = self.is_refused = False

    def in_loop(self, step: Step, gives_back: bool = False, may_write: bool = True) -> Step:
        """The step for one loop, within which no weights change.

        Args:
            step: the step itself, which changes nothing of what it is given.
            gives_back: bool. Whether each step is given what the one before gave. Defaults to
                `False`.
            may_write: bool. Whether what is given is nobody else's. Defaults to `True`.

        Returns:
            The same function, which then may change what it is given.
        """
        begun: list[Any] = []

        def run(place: int, given: Sequence[Tensor]) -> Sequence[Tensor]:
            if self.is_refused:
                return step(place, given)
            if self.replay is None:
                # A second recording at one place would tell nothing.
                is_same = self._is_placed and self._first and self._first.place == place
                return step(place, given) if is_same else self._record(step, place, given)
            is_first = not begun
            if is_first:
                try:
                    begun.append(self.replay.begun(given))
                except Exception as error:  # Weights that lie otherwise than they did.
                    self._refuse(error)
                    return step(place, given)
            if not self.is_checked:
                return self._check(begun[0], step, place, given)
            copy = not may_write or (is_first and gives_back)
            made: Sequence[Tensor] = begun[0](place, self.replay.laid(given, copy))
            return made

        return run

    def _record(self, step: Step, place: int, given: Sequence[Tensor]) -> Sequence[Tensor]:
        import torch

        from keras_mpt.decoding.recording import Recording
        from keras_mpt.decoding.replay import Replay

        try:
            found = Recording(step, place, given)
        except torch.OutOfMemoryError as error:
            self._refuse(error)
            return step(place, given)
        try:
            if self._first is None:
                self._first = found.without_tensors()
            else:
                self.replay, self._first = Replay(self._first, found), None
        except Exception as error:  # An operation may be of a kind that was never seen here.
            self._refuse(error)
        return found.made

    def _check(
        self, replayed: Step, step: Step, place: int, given: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """A step both ways."""
        wanted = step(place, given)
        try:
            made = replayed(place, self.replay.laid(given, copy=True))
        except Exception as error:  # As above.
            self._refuse(error)
            return wanted
        if not all(map(_has_numbers, wanted)):
            return wanted  # NaN would tell nothing.
        if not all(_is_near(a, b) for a, b in zip(made, wanted, strict=True)):
            self._refuse(ValueError("other numbers came of what was recorded"))
            return wanted
        self.is_checked = True
        return made

    def _refuse(self, error: Exception) -> None:
        self.is_refused, self.replay, self._first = True, None, None
        self._warn(f"{type(error).__name__}: {error}")


def _state() -> tuple[Any, ...]:
    """What of PyTorch's state decides which operations run."""
    import torch

    kinds = ("cpu", "cuda")
    casts = [(torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in kinds]
    return (*casts, torch.is_inference_mode_enabled(), torch.get_default_dtype())


def _has_numbers(wanted: Tensor) -> bool:
    """Whether a tensor has any that are finite, if it has any at all."""
    import torch

    return not wanted.numel() or bool(torch.isfinite(wanted).any())


def _is_near(made: Tensor, wanted: Tensor) -> bool:
    """Whether a replayed tensor is the step's, to rounding."""
    import torch

    if (made.shape, made.dtype) != (wanted.shape, wanted.dtype):
        return False
    if not wanted.is_floating_point():
        return bool(torch.equal(made, wanted))
    finite = wanted[torch.isfinite(wanted)]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    eps = torch.finfo(wanted.dtype).eps
    most = (64 if eps < 1e-4 else 4) * eps * scale  # In half precision nothing is put together.
    return bool(torch.allclose(made, wanted, rtol=0.0, atol=most, equal_nan=True))
