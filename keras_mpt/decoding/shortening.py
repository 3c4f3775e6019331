"""Operations that a recorded step need not run: copies, above all, and views of views.

Each function takes a `Graph` and leaves it computing the same. Whether two tensors share memory is
seen on the recorded ones.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx

from keras_mpt.decoding.recording import Graph
from keras_mpt.decoding.recording import written_to as written_to
from keras_mpt.types import Tensor

aten = torch.ops.aten

_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten._scaled_dot_product_fused_attention_overrideable.default,
}
# What reads its arguments however they lie in memory.
_ANY_LAYOUT = _ATTENTION | {aten.bmm.default, aten.mm.default}


def shorten(graph: Graph) -> set[fx.Node]:
    """Leaves out what is not needed.

    Returns:
        The given tensors that a step now writes to: their memory is what it gives back.
    """
    _parts_of_stacks(graph)
    drop_unused(graph)
    _copies_for_readers(graph)
    written = _write_in_place(graph)
    _lay_for_attention(graph, written)
    _views_of_views(graph)
    _sums_in_products(graph)
    _same_again(graph)
    drop_unused(graph)
    graph.graph.lint()
    return written


def tensor(node: Any) -> Tensor:
    """The recorded tensor of a node, `None` if it stands for none."""
    return node.meta.get("tensor") if isinstance(node, fx.Node) else None


def memory(node: Any) -> int | None:
    """Which memory a node's tensor lies in."""
    found = tensor(node)
    if found is None:
        return None
    return int(node.meta.get("memory", found.untyped_storage().data_ptr()))


def is_view(node: fx.Node) -> bool:
    """Whether a node's tensor is another look at its first argument's memory."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    source = node.args[0] if node.args else None
    return tensor(node) is not None and memory(source) == memory(node) and not written_to(node)


def drop_unused(graph: Graph) -> None:
    """Leaves out what reaches no output; what writes stays where its memory is read later."""
    read: set[int | None] = set()
    for node in reversed(graph.graph.nodes):
        if node.op == "output" or node.users:
            is_used = True
        else:
            is_used = any(memory(n) in read for n in written_to(node))
        if is_used:
            read |= {memory(n) for n in node.all_input_nodes}
        elif node.op == "call_function":
            graph.graph.erase_node(node)


def written_memory(graph: Graph) -> dict[int | None, list[int]]:
    """Where in the graph each memory is written to."""
    found: dict[int | None, list[int]] = {}
    for i, node in enumerate(graph.graph.nodes):
        for target in written_to(node):
            found.setdefault(memory(target), []).append(i)
    return found


def _places(graph: Graph) -> dict[fx.Node, int]:
    return {node: i for i, node in enumerate(graph.graph.nodes)}


def _parts_of_stacks(graph: Graph) -> None:
    """`stack([a, b])[0]` is `a`, unless one of them is written to afterwards."""
    for node in graph.graph.nodes:
        if node.target is aten.slice.Tensor and tensor(node).shape == tensor(node.args[0]).shape:
            node.replace_all_uses_with(node.args[0])
    places, written = _places(graph), written_memory(graph)
    for node in graph.graph.nodes:
        if node.target is aten.select.int:
            stack, axis, which = node.args
        elif node.target is operator.getitem and node.args[0].target is aten.unbind.int:
            (stack, *rest), which = node.args[0].args, node.args[1]
            axis = rest[0] if rest else 0
        else:
            continue
        if stack.target is not aten.stack.default or not isinstance(which, int):
            continue
        given = stack.args[1] if len(stack.args) > 1 else 0
        part, rank = stack.args[0][which], tensor(stack).dim()
        later = max(written.get(memory(part), [-1]))
        is_same = given % rank == axis % rank and tensor(part).is_contiguous()
        if is_same and memory(stack) not in written and later < places[stack]:
            views = _views_of(node)
            node.replace_all_uses_with(part)
            for view in views:  # They look at the part's memory from now on.
                view.meta["memory"] = memory(part)


def _views_of(node: fx.Node) -> list[fx.Node]:
    """A node's views, and theirs."""
    own = [user for user in node.users if memory(user) == memory(node)]
    return [*own, *(n for user in own for n in _views_of(user))]


def _copies_for_readers(graph: Graph) -> None:
    """What is copied to lie in order, for an operation that reads it as it lies."""
    places, written = _places(graph), written_memory(graph)
    for node in graph.graph.nodes:
        if node.target is not aten.clone.default or memory(node) in written or not node.users:
            continue
        source = node.args[0]
        last = max(places[user] for user in node.users)
        is_written = any(places[node] < i < last for i in written.get(memory(source), []))
        reads = all(user.target in _ANY_LAYOUT for user in node.users)
        has_order = source.target in _ATTENTION or tensor(source).stride(-1) == 1
        if reads and has_order and not is_written:
            node.replace_all_uses_with(source)


def _write_in_place(graph: Graph) -> set[fx.Node]:
    """What is only there to be copied, and the copy then written to, is written to itself."""
    written, found = written_memory(graph), set()
    for node in list(graph.graph.nodes):
        source = node.args[0] if node.target is aten.clone.default else None
        if source is None or list(source.users) != [node] or memory(node) not in written:
            continue
        if source in graph.given:
            source.meta = {"tensor": tensor(node), "memory": memory(node)}
            found.add(source)
        elif not _is_own(source) or tensor(source).stride() != tensor(node).stride():
            continue
        else:
            source.meta["memory"] = memory(node)
        node.replace_all_uses_with(source)
    return found


def _lay_for_attention(graph: Graph, written: set[fx.Node]) -> None:
    """Keys and values lie as attention reads them, in one piece for each head."""
    for node in written:
        turned = [n for n in node.users if n.target is aten.transpose.int]
        rest = [n for n in node.users if n not in turned]
        is_read_so = all(user.target in _ATTENTION for n in turned for user in n.users)
        is_written_alone = all(
            user.target is aten.copy_.default
            for n in rest
            if n.op != "output"
            for user in (n.users if is_view(n) else [n])
        )
        if not turned or not is_read_so or not is_written_alone:
            continue
        if len({n.args[1:] for n in turned}) > 1:
            continue
        axes = turned[0].args[1:]
        shape = tensor(turned[0]).shape
        node.meta["memory"] = memory(node)
        node.meta["tensor"] = tensor(node).new_empty(shape).transpose(*axes)
        for view in (n for n in node.users if is_view(n)):
            given = [tensor(a) if isinstance(a, fx.Node) else a for a in view.args]
            if any(isinstance(a, fx.Node) and tensor(a) is None for a in view.args):
                given[2:] = [0, tensor(view).shape[given[1]]]  # Of a slice that follows the place.
            view.meta["memory"] = memory(node)
            view.meta["tensor"] = view.target(*given)


def _is_own(node: fx.Node) -> bool:
    """Whether a node's tensor lies in memory of its own, which nothing else looks at."""
    others = {memory(n) for n in node.all_input_nodes}
    return (
        node.op == "call_function"
        and node.target is not operator.getitem
        and (memory(node) not in others)
    )


def _views_of_views(graph: Graph) -> None:
    """Where a view of a tensor in order is in order too, and all of it, one view will do."""
    for node in graph.graph.nodes:
        if not is_view(node) or not tensor(node).is_contiguous():
            continue
        source, whole = node, node
        while is_view(source):
            source = source.args[0]
            is_whole = tensor(source).numel() == tensor(node).numel()
            same_dtype = tensor(source).dtype == tensor(node).dtype
            if is_whole and same_dtype and tensor(source).is_contiguous():
                whole = source
        if whole is node:
            continue
        if tensor(whole).shape == tensor(node).shape:
            node.replace_all_uses_with(whole)
        elif node.target is not aten.view.default or node.args[0] is not whole:
            with graph.graph.inserting_before(node):
                view = graph.graph.call_function(
                    aten.view.default, (whole, list(tensor(node).shape))
                )
            view.meta = node.meta
            node.replace_all_uses_with(view)
    drop_unused(graph)


def _sums_in_products(graph: Graph) -> None:
    """A matrix product, and what is added to each of its rows, as one operation.

    Not in bfloat16 and its like, in which it would round once where the model rounds twice.
    """
    for node in list(graph.graph.nodes):
        if node.target is not aten.add.Tensor or len(node.args) != 2 or node.kwargs:
            continue
        if tensor(node).dtype not in (torch.float32, torch.float64):
            continue
        for product, bias in (node.args, node.args[::-1]):
            made = _added(graph, node, product, bias)
            if made is not None:
                node.replace_all_uses_with(made)
                break
    drop_unused(graph)


def _added(graph: Graph, node: fx.Node, product: Any, bias: Any) -> fx.Node | None:
    seen = product
    while isinstance(seen, fx.Node) and is_view(seen) and len(seen.users) == 1:
        seen = seen.args[0]
    is_product = isinstance(seen, fx.Node) and seen.target in (aten.mm.default, aten.bmm.default)
    if is_product and any(memory(n) in written_memory(graph) for n in seen.args):
        return None
    if not is_product or bias not in graph.lasting or len(seen.users) != 1:
        return None
    shape, of_bias, of_product = tensor(node).shape, tensor(bias).shape, tensor(seen).shape
    columns = of_product[-1]
    is_of_rows = of_bias == shape[len(shape) - len(of_bias) :] and math.prod(of_bias) == columns
    one = len(of_product) == 2 or of_product[0] == 1
    dtypes = {tensor(n).dtype for n in (node, bias, seen)}
    if not is_of_rows or not one or len(dtypes) > 1 or tensor(product).shape != shape:
        return None
    if not tensor(product).is_contiguous() or not tensor(seen).is_contiguous():
        return None

    def seen_as(source: fx.Node, shape: tuple[int, ...]) -> fx.Node:
        if tuple(tensor(source).shape) == shape:
            return source
        if len(shape) == 2 and len(tensor(source).shape) == 3:
            made = graph.graph.call_function(aten.select.int, (source, 0, 0))
            made.meta["tensor"] = tensor(source).select(0, 0)
        else:
            made = graph.graph.call_function(aten.view.default, (source, list(shape)))
            made.meta["tensor"] = tensor(source).view(shape)
        return made

    with graph.graph.inserting_before(node):
        left, right = (seen_as(n, tuple(tensor(n).shape[-2:])) for n in seen.args)
        rows = graph.graph.call_function(
            aten.addmm.default, (seen_as(bias, (columns,)), left, right)
        )
        rows.meta["tensor"] = tensor(seen).new_empty(tuple(of_product[-2:]))
        return seen_as(rows, tuple(shape))


def _same_again(graph: Graph) -> None:
    """What is computed a second time of the same."""
    written, known = written_memory(graph), dict[Any, fx.Node]()
    for node in graph.graph.nodes:
        if node.op != "call_function" or written_to(node):
            continue
        involved = [node, *node.all_input_nodes]
        if any(memory(n) in written for n in involved if memory(n) is not None):
            continue
        key = (node.target, repr(node.args), repr(sorted(node.kwargs.items())))
        if key in known:
            node.replace_all_uses_with(known[key])
        else:
            known[key] = node
