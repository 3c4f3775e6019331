"""PyTorch's `matmul` and `einsum` of activations and frozen weights, by oneDNN.

PyTorch's public way to oneDNN, `to_mkldnn`, copies all activations to its own kind of tensor and
back. What has no public name is taken here alone:

`torch.ops.mkldnn._linear_pointwise`: oneDNN's product of dense matrices as they lie, which
`torch.compile` calls too.

`_top_saved_tensors_default_hooks`: whether somebody watches what is saved for the way back.
`torch.utils.checkpoint` does, and wants the same saved again when it runs its function once more,
maybe outside of this.

`_are_functorch_transforms_active`, and `_current_level` of forward-mode gradients: whether what
runs is transformed by rules that an operation of oneDNN's lacks.

`_len_torch_function_stack`, `_len_torch_dispatch_stack`: whether a mode of somebody else's, such as
`FlopCounterMode`, is around what runs. It would not see what is answered here.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from keras_mpt.types import Tensor

# Products of fewer multiplications are over before another library pays.
LEAST_MULTIPLICATIONS = 2**20
# Of few rows it is the weights' way from memory that takes the time: so many of them pay.
FEW_ROWS, LEAST_WEIGHTS = 4, 2**17

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_AUTOGRAD, _FORWARD = torch._C._autograd, torch.autograd.forward_ad


def is_available() -> bool:
    """Whether this PyTorch has oneDNN, and all that is taken from inside of it."""
    inside = (
        (torch.ops.mkldnn, "_linear_pointwise"),
        (torch._C, "_are_functorch_transforms_active"),
        (torch._C, "_len_torch_function_stack"),
        (torch._C, "_len_torch_dispatch_stack"),
        (_AUTOGRAD, "_top_saved_tensors_default_hooks"),
        (_FORWARD, "_current_level"),
    )
    return torch.backends.mkldnn.is_available() and all(hasattr(*name) for name in inside)


def is_watched() -> bool:
    """Whether products should be PyTorch's own: others look on, or a user has said so."""
    others = torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack()
    return bool(others) or not torch.backends.mkldnn.enabled


class OneDNN(TorchFunctionMode):
    """A context in which oneDNN multiplies activations by frozen float32 weights.

    Args:
        is_recomputed: bool. Whether what `torch.utils.checkpoint` runs once more is within such a
            context then too.
    """

    def __init__(self, is_recomputed: bool) -> None:
        super().__init__()
        self.is_recomputed = is_recomputed

    @contextlib.contextmanager
    def recomputed(self) -> Iterator[None]:
        """Around what is run once more within such a context."""
        before, self.is_recomputed = self.is_recomputed, True
        try:
            yield
        finally:
            self.is_recomputed = before

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if kwargs:
            return function(*args, **kwargs)
        if function is torch.matmul:
            x, weights = args
            if weights.dim() == 2 and self._takes(x, weights, 1):
                return _product(x, weights, 1)
        elif function is torch.einsum and len(args) == 3:
            equation, x, weights = args
            n = contracted(equation)
            if n and self._takes(x, weights, n):
                return _product(x, weights, n)
        return function(*args)

    def _takes(self, x: Tensor, weights: Tensor, n: int) -> bool:
        """Whether these are large rows, and frozen weights with as many of the n axes."""
        if type(x) not in _PLAIN or type(weights) not in _PLAIN or weights.requires_grad:
            return False
        if not (x.dtype == weights.dtype == torch.float32 and x.device.type == "cpu"):
            return False
        if x.layout != torch.strided or not _is_matrix(weights):
            return False
        # Autocast would round both first, and a trace is for elsewhere.
        if torch.is_autocast_enabled("cpu") or torch.jit.is_tracing():
            return False
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return False
        if _FORWARD._current_level >= 0:
            return False
        if weights.device.type != "cpu" or x.dim() <= n or x.shape[-n:] != weights.shape[:n]:
            return False
        if not _pays(math.prod(x.shape[:-n]), weights, n):
            return False
        return self.is_recomputed or _AUTOGRAD._top_saved_tensors_default_hooks(True) is None


class _Product(torch.autograd.Function):
    """Rows times frozen weights, of which the transpose is given: (m, k) by (n, k)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, transposed: Tensor) -> Tensor:
        ctx.save_for_backward(transposed)
        return _multiplied(x, transposed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (transposed,) = ctx.saved_tensors
        # By itself, so that a gradient has one too.
        return _Product.apply(gradient, transposed.t()), None


def _multiplied(x: Tensor, transposed: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), transposed, None, "none", [], "")


def _product(x: Tensor, weights: Tensor, n: int) -> Tensor:
    """x times weights, summed over the last n axes of x and the first of the weights."""
    shape = (*x.shape[:-n], *weights.shape[n:])
    rows = x.flatten(-n).flatten(0, -2)
    transposed = weights.flatten(n).flatten(0, n - 1).t()
    if torch.is_grad_enabled() and x.requires_grad:
        made = _Product.apply(rows, transposed)
    else:
        made = _multiplied(rows, transposed)
    # No view, which might not be changed in place; PyTorch's own `matmul` ends in it too.
    return torch.ops.aten._unsafe_view(made, shape)


def _pays(rows: int, weights: Tensor, n: int) -> bool:
    """Whether oneDNN is the faster one, as measured."""
    if rows >= FEW_ROWS:
        return rows * weights.numel() >= LEAST_MULTIPLICATIONS
    columns = math.prod(weights.shape[n:])
    # What it reads down columns meets in few places of a cache where they lie 2^i apart.
    is_slow = rows == 1 and weights.is_contiguous() and columns & (columns - 1) == 0
    return rows > 0 and weights.numel() >= LEAST_WEIGHTS and not is_slow


def _is_matrix(weights: Tensor) -> bool:
    """Whether weights lie in memory as a matrix or its transpose."""
    if weights.layout != torch.strided:
        return False
    return weights.is_contiguous() or (weights.dim() == 2 and weights.t().is_contiguous())


@functools.cache
def contracted(equation: str) -> int:
    """How many axes an `einsum` sums over where it is a product of matrices as they lie, else 0.

    Args:
        equation: string, such as "abc,cde->abde": the last axes of the first are the first of the
            second, and what is left of both is the output, in that order.
    """
    operands, _, output = equation.replace(" ", "").partition("->")
    left, _, right = operands.partition(",")
    for n in range(1, min(len(left), len(right) + 1)):
        kept = left[:-n] + right[n:]
        if left[-n:] == right[:n] and kept == output:
            letters = [*left, *right[n:]]
            return n if len({*letters}) == len(letters) else 0
    return 0
