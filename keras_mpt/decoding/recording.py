"""What PyTorch computes in one step of a loop, as a list of its operations.

A step runs as it is while a `Recording` notes every operation that reaches PyTorch, whatever Python
asked for it. Two recordings of steps at different places tell what of it follows from the place.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from keras_mpt.types import Tensor

Step = Callable[[int, Sequence[Tensor]], Sequence[Tensor]]
"""A function of a place and some tensors that gives tensors, and changes none."""


# A recording holds what it computes, at most so many bytes: past them it is given up.
MOST_BYTES = 2**29
# Stands among operations for what reads a tensor's numbers.
_READ = "numbers that Python reads"


class CannotReplay(Exception):
    """Why what was recorded says nothing about other steps."""


class Known:
    """What is known of a tensor that is gone.

    Args:
        tensor: the tensor.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.dtype = tensor.shape, tensor.dtype


class Recording(TorchDispatchMode):
    """A step that ran, and what it ran.

    `torch.utils._python_dispatch`: the class by which PyTorch's documentation says to see all
    operations. It sees those of the thread that records, and lets them run.

    Args:
        step: the step.
        place: int. Where it is.
        given: list of tensors. What it is given.
    """

    def __init__(self, step: Step, place: int, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.place, self.given = place, list(given)
        # All tensors are held, so that neither their ids nor their storages are used again.
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.is_too_large, self._bytes = False, 0
        self._storages = {t.untyped_storage().data_ptr() for t in given}
        with self, _Reading(self):
            self.made = list(step(place, given))

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        made = function(*args, **kwargs)
        if not self.is_too_large:
            self.calls.append((function, args, kwargs, made))
            self._hold(made)
        return made

    def _hold(self, made: Any) -> None:
        """Counts what is held from now on, and lets go of all if that is too much."""
        for storage in (tensor.untyped_storage() for tensor in _tensors(made)):
            if storage.data_ptr() not in self._storages:
                self._storages.add(storage.data_ptr())
                self._bytes += storage.nbytes()
        if self._bytes > MOST_BYTES:
            self.is_too_large = True
            self.calls.clear()

    def without_tensors(self) -> Recording:
        """The same without what was given and computed, for which `Known` stands.

        Raises:
            CannotReplay: a step that computes too much to be held.
        """
        self.check_size()
        outside: set[int] = set()
        known = {id(t): Known(t) for t in self.given}
        for _, args, kwargs, made in self.calls:
            outside |= {id(t) for t in _tensors([args, kwargs])} - known.keys()
            known |= {
                id(t): Known(t) for t in _tensors(made) if id(t) not in outside | known.keys()
            }

        def of(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return known.get(id(value), value)
            if isinstance(value, (list, tuple)):
                values = [of(item) for item in value]
                return values if isinstance(value, list) else tuple(values)
            if isinstance(value, dict):
                return {name: of(item) for name, item in value.items()}
            return value

        found = copy.copy(self)
        found.given, found.made = of(self.given), of(self.made)
        found.calls = [(call[0], *map(of, call[1:])) for call in self.calls]
        return found

    def check_size(self) -> None:
        """Refuses a recording that was given up."""
        if self.is_too_large:
            raise CannotReplay(f"more than {MOST_BYTES >> 20} MiB, which a recording would hold")


class _Reading(TorchFunctionMode):
    """Notes which tensors' numbers Python reads: no operation shows that."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in (torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__):
            self.recording.calls.append((_READ, args[:1], {}, None))
        return function(*args, **(kwargs or {}))


def _tensors(nest: Any) -> list[Tensor]:
    """The tensors in lists, tuples and dicts."""
    if isinstance(nest, torch.Tensor):
        return [nest]
    if isinstance(nest, dict):
        nest = list(nest.values())
    return [t for item in nest for t in _tensors(item)] if isinstance(nest, (list, tuple)) else []


class Graph:
    """Two recordings as a graph of one function of a place and tensors.

    Args:
        first, second: recordings of one step: at different places, if it is taken at several. The
            first may be `without_tensors`.

    Attributes:
        graph: an `fx.Graph`. Each node that stands for a tensor has the second recording's as
            `meta["tensor"]`, what is given one like it; and may have another `meta["memory"]`.
        place: the node of the place.
        given: the nodes of what a step is given.
        lasting: the nodes of tensors that were there before, such as weights, and the tensors.

    Raises:
        CannotReplay: where they differ in more than the place explains.
    """

    def __init__(self, first: Recording, second: Recording) -> None:
        second.check_size()
        self.graph, self._recordings = fx.Graph(), (first, second)
        self._shift = second.place - first.place
        self.place = self.graph.placeholder("place")
        self.given: list[fx.Node] = []
        self.lasting: dict[fx.Node, Tensor] = {}
        # Of each recording, the nodes by the ids of tensors.
        self._known: tuple[dict[int, fx.Node], dict[int, fx.Node]] = ({}, {})
        self._of_steps: set[fx.Node] = set()
        # What follows from no weight, and from nothing given.
        self._constant: set[fx.Node] = {self.place}
        self._shifted: dict[Any, fx.Node] = {}
        self._numbers: dict[Any, fx.Node] = {}
        for i, pair in enumerate(zip(first.given, second.given, strict=True)):
            if id(pair[1]) in self._known[1] or id(pair[0]) in self._known[0]:
                raise CannotReplay("a tensor that is given twice")
            node = self._tensor(self.graph.placeholder(f"given_{i}"), *pair)
            # A step is given tensors in order: in it whatever was a view is one.
            tensor = node.meta["tensor"]
            node.meta["memory"] = tensor.untyped_storage().data_ptr()
            node.meta["tensor"] = tensor.new_empty(tensor.shape)
            self.given.append(node)
            self._of_steps.add(node)
        if len(first.calls) != len(second.calls):
            raise CannotReplay(f"{len(first.calls)} operations, and then {len(second.calls)}")
        for one, other in zip(first.calls, second.calls, strict=True):
            self._add(one, other)
        self._shifted.clear()
        made = [self._value(a, b) for a, b in zip(first.made, second.made, strict=True)]
        self.graph.output(made)

    def _add(self, one: Any, other: Any) -> None:
        function, args, kwargs, made = other
        if one[0] is not function:
            raise CannotReplay(f"{one[0]}, and then {function}")
        if function is not _READ and _draws(function, args, kwargs):
            raise CannotReplay(f"{function}, which draws numbers at random")
        args, kwargs = self._value(one[1], args), self._value(one[2], kwargs)
        if function in (_READ, torch.ops.aten._local_scalar_dense.default):
            # A weight's number would be a constant here, and stay what it was when weights change.
            if isinstance(args[0], fx.Node) and args[0] not in self._constant:
                raise CannotReplay("a number that is read of what was computed")
            return
        if _has_dynamic_shape(function, other[1]):
            raise CannotReplay(f"{function}, whose shape depends on numbers")
        node = self.graph.call_function(function, args, kwargs)
        if any(n in self._of_steps for n in node.all_input_nodes):
            self._of_steps.add(node)
        if all(n in self._constant for n in node.all_input_nodes):
            self._constant.add(node)
        for target in written_to(node):
            if target in self.lasting:
                raise CannotReplay("a constant or weight that is written to")
        if isinstance(made, torch.Tensor):
            # What is changed in place is still what it was.
            if id(made) not in self._known[1]:
                self._tensor(node, one[3], made)
            return
        for i, pair in enumerate(zip(one[3], made, strict=True) if made is not None else ()):
            if isinstance(pair[1], torch.Tensor):
                item = self.graph.call_function(operator.getitem, (node, i))
                self._tensor(item, *pair)
                if node in self._constant:
                    self._constant.add(item)
                if node in self._of_steps:
                    self._of_steps.add(item)

    def _tensor(self, node: fx.Node, one: Tensor, other: Tensor) -> fx.Node:
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            raise CannotReplay(f"a tensor of {one.shape}, and then of {other.shape}")
        self._known[0][id(one)] = self._known[1][id(other)] = node
        node.meta["tensor"] = other
        return node

    def _value(self, one: Any, other: Any) -> Any:
        """An argument, of what it was in both."""
        if isinstance(one, (torch.Tensor, Known)) and isinstance(other, torch.Tensor):
            return self._of_tensors(one, other)
        if type(one) is not type(other):
            raise CannotReplay(f"{one!r}, and then {other!r}")
        if isinstance(one, (list, tuple)):
            if len(one) != len(other):
                raise CannotReplay(f"{len(one)} values, and then {len(other)}")
            values = [self._value(a, b) for a, b in zip(one, other, strict=True)]
            return values if isinstance(one, list) else tuple(values)
        if isinstance(one, dict):
            return {name: self._value(one[name], other[name]) for name in other}
        if one == other or (one != one and other != other):
            return other
        is_number = isinstance(one, (int, float)) and not isinstance(one, bool)
        if is_number and other - one == self._shift:
            return self._at_place(other)
        raise CannotReplay(f"{one!r}, and then {other!r}")

    def _of_tensors(self, one: Tensor, other: Tensor) -> fx.Node:
        nodes = [known.get(id(t)) for known, t in zip(self._known, (one, other), strict=True)]
        if nodes[0] is not nodes[1]:
            raise CannotReplay("tensors of different operations")
        if nodes[1] is not None:
            return nodes[1]
        if isinstance(one, Known):
            raise CannotReplay("a tensor that was computed, and then was not")
        if one is other:
            if not isinstance(one, torch.nn.Parameter):
                raise CannotReplay("a tensor that is neither given nor a weight")
        elif not _same(one, other):
            # A number as a tensor.
            if one.numel() != 1 or not _same(one + self._shift, other):
                raise CannotReplay("tensors of other numbers than the place explains")
            number = self._at_place(other.item())
            options = {"dtype": other.dtype, "device": other.device}
            node = self.graph.call_function(
                torch.ops.aten.full.default, (list(other.shape), number), options
            )
            self._constant.add(node)
            return self._tensor(node, one, other)
        elif other.numel() == 1:
            key = (other.dtype, other.device, tuple(other.shape), other.item())
            if key in self._numbers:
                self._known[0][id(one)] = self._known[1][id(other)] = self._numbers[key]
                return self._numbers[key]
            self._numbers[key] = node = self._add_lasting(other)
            return self._tensor(node, one, other)
        return self._tensor(self._add_lasting(other), one, other)

    def _add_lasting(self, tensor: Tensor) -> fx.Node:
        with self.graph.inserting_after([self.place, *self.given, *self.lasting][-1]):
            node = self.graph.placeholder(f"lasting_{len(self.lasting)}")
        self.lasting[node] = tensor
        if not isinstance(tensor, torch.nn.Parameter):
            self._constant.add(node)
        return node

    def _at_place(self, value: Any) -> fx.Node:
        """A number that follows the place."""
        key = (type(value), value)
        if key not in self._shifted:
            offset = value - self._recordings[1].place
            node = self.graph.call_function(operator.add, (self.place, offset))
            self._shifted[key] = node
            self._constant.add(node)
        return self._shifted[key]


def _draws(function: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation draws at random; attention does where it drops out."""
    if torch.Tag.nondeterministic_seeded not in function.tags:
        return False
    names = [a.name for a in function._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    return "dropout_p" not in names or bool(given.get("dropout_p", 0.0))


def written_to(node: fx.Node) -> list[fx.Node]:
    """The arguments that a node's operation writes to."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    named = {a.name: node.args[i] for i, a in enumerate(schema.arguments) if i < len(node.args)}
    named |= node.kwargs
    writes = {a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write}
    return [v for name, v in named.items() if name in writes and isinstance(v, fx.Node)]


def _has_dynamic_shape(function: Any, args: Any) -> bool:
    """Whether how much an operation gives depends on numbers; an index's only if it is a mask."""
    if torch.Tag.dynamic_output_shape not in function.tags:
        return False
    if function is not torch.ops.aten.index.Tensor:
        return True
    return any(t.dtype in (torch.bool, torch.uint8) for t in _tensors(args[1]))


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same; NaN is the same as NaN."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
