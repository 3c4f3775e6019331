"""A recorded step as a function that PyTorch runs without Keras."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import fx

from keras_mpt.decoding import shortening
from keras_mpt.decoding.recording import CannotReplay, Graph, Recording
from keras_mpt.types import Tensor

# What is made of weights once for a whole loop has at most so many numbers: it is kept meanwhile.
_KEPT_NUMBERS = 2**16


class Replay:
    """A step as two recordings of it tell it.

    Args:
        first, second: recordings of the step at different places.

    Raises:
        CannotReplay: where they do not tell.
    """

    def __init__(self, first: Recording, second: Recording) -> None:
        found = Graph(first, second)
        self._written = {found.given.index(n) for n in shortening.shorten(found)}
        self._layouts = [(tuple(t.shape), t.stride()) for t in map(shortening.tensor, found.given)]
        (made,) = next(n for n in found.graph.nodes if n.op == "output").args
        unchanged = [n for i, n in enumerate(found.given) if made[i : i + 1] == [n]]
        self._unchanged = [found.given.index(n) for n in unchanged]
        lasting = {node: t for node, t in found.lasting.items() if node.users}
        self._lasting = list(lasting.values())
        self._lasting_layouts = [(t.shape, t.stride(), t.dtype) for t in self._lasting]
        before = _before(found, unchanged)
        self._before = _function([*unchanged, *lasting], before, before)
        steps = [n for n in found.graph.nodes if n.op == "call_function" and n not in before]
        given = [found.place, *found.given, *lasting, *before]
        self._step = _function(given, steps, made)

    def begun(self, given: Sequence[Tensor]) -> Callable[[int, Sequence[Tensor]], list[Tensor]]:
        """The step for one loop, whose weights do not change, nor what the step leaves unchanged.

        Args:
            given: list of tensors. What the loop's first step is given.

        Raises:
            CannotReplay: weights that lie otherwise in memory than they did.
        """
        if self._lasting_layouts != [(t.shape, t.stride(), t.dtype) for t in self._lasting]:
            raise CannotReplay("weights that lie otherwise in memory than they did")
        rest = (*self._lasting, *self._before(*(given[i] for i in self._unchanged), *self._lasting))
        step = self._step

        def run(place: int, given: Sequence[Tensor]) -> list[Tensor]:
            return step(place, *given, *rest)

        return run

    def laid(self, given: Sequence[Tensor], copy: bool = False) -> list[Tensor]:
        """The given tensors, in the order in memory that the step knows.

        Args:
            given: list of tensors.
            copy: bool. Whether what the step writes to is copied in any case. Defaults to `False`.
        """
        seen: set[int] = set()
        found = []
        for i, (tensor, layout) in enumerate(zip(given, self._layouts, strict=True)):
            memory = tensor.untyped_storage().data_ptr()
            always = i in self._written and (copy or memory in seen)
            seen.add(memory)
            found.append(self._laid(tensor, *layout, always))
        return found

    def _laid(self, tensor: Tensor, shape: Any, stride: Any, always: bool) -> Tensor:
        if tensor.stride() == stride and not always:
            return tensor
        empty = torch.empty_strided(shape, stride, dtype=tensor.dtype, device=tensor.device)
        return empty.copy_(tensor)


def _before(found: Graph, unchanged: list[fx.Node]) -> dict[fx.Node, None]:
    """What a loop computes once: all that follows from weights and what stays as it is."""
    written = shortening.written_memory(found)
    before: dict[fx.Node, None] = {}
    known, of_loop = {*unchanged, *found.lasting}, set(unchanged)
    for node in found.graph.nodes:
        if node.op != "call_function" or shortening.written_to(node):
            continue
        inputs = node.all_input_nodes
        if any(n not in known for n in inputs):
            continue
        if any(shortening.memory(n) in written for n in (node, *inputs)):
            continue
        if any(n in of_loop for n in inputs):
            of_loop.add(node)
        tensor = shortening.tensor(node)
        is_small = tensor is None or tensor.numel() <= _KEPT_NUMBERS
        if node in of_loop or is_small or shortening.is_view(node):
            known.add(node)
            before[node] = None
    return before


def _function(
    given: Iterable[fx.Node], nodes: Iterable[fx.Node], made: Iterable[fx.Node]
) -> Callable[..., Any]:
    """A function of some nodes that computes others."""
    graph, copies = fx.Graph(), {}
    for i, node in enumerate(given):
        copies[node] = graph.placeholder(f"given_{i}")
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
        copies[node].meta = {}
    graph.output([copies[n] for n in made])
    # Not by a GraphModule: PyTorch keeps the source of each, for ever.
    code = graph.python_code("self")
    names = dict(code.globals)
    exec(code.src, names)
    made_function: Callable[..., Any] = functools.partial(names["forward"], None)
    return made_function
