"""Products of frozen weights by oneDNN, against NumPy, PyTorch's own and models without them."""

import threading

import numpy as np
import pytest

from keras_mpt.splicing import frozen_products as products
from tests.marks import IS_EAGER, only_torch

pytestmark = only_torch
if IS_EAGER:
    import torch
    from torch.autograd import forward_ad
    from torch.overrides import TorchFunctionMode
    from torch.utils.flop_counter import FlopCounterMode

    from keras_mpt.splicing import onednn
else:
    TorchFunctionMode = object


def numbers(*shape, seed=0, gradient=False):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=shape), dtype=torch.float32, requires_grad=gradient)


def test_pytorch_has_what_is_taken_from_inside_of_it():
    """Else products would quietly be its own, and the tests here skipped."""
    assert onednn.is_available() == torch.backends.mkldnn.is_available()


@pytest.mark.parametrize(
    ("equation", "axes"),
    [
        ("abc,cde->abde", 1),  # Keras's EinsumDense, of queries, keys and values
        ("abcd,cde->abe", 2),  # … and of what attention gives.
        ("ab, bc -> ac", 1),
        ("btd,ndh->btnh", 0),  # Gemma's, whose weights lie otherwise.
        ("abc,cd->adb", 0),
        ("abc,abc->", 0),
        ("aecd,abcd->acbe", 0),  # attention
        ("abb,bc->ac", 0),
        ("aab,bc->aac", 0),
        ("abc,cda->abda", 0),
        ("...b,bc->...c", 0),
        ("abb,bbc->ac", 0),
        ("ab,bc", 0),
        ("ab->ba", 0),
    ],
)
def test_which_einsums_are_products(equation, axes):
    assert onednn.contracted(equation) == axes


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        (None, [(3, 5, 7), (7, 4)]),
        (None, [(6, 7), (7, 4)]),
        ("abc,cde->abde", [(2, 3, 6), (6, 2, 4)]),
        ("abcd,cde->abe", [(2, 3, 2, 4), (2, 4, 5)]),
    ],
)
@pytest.mark.parametrize("is_transposed", [False, True])
def test_values_and_gradients_are_numpys(made, equation, shapes, is_transposed):
    x, w = numbers(*shapes[0], gradient=True), numbers(*shapes[1], seed=1)
    if is_transposed:  # Other orders in memory.
        w = w.t().contiguous().t() if w.dim() == 2 else w
        x = x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    operands = equation or "...k,kn->...n"
    with products.frozen_products():
        y = torch.matmul(x, w) if equation is None else torch.einsum(equation, x, w)
    assert len(made) == 1
    a, b = (t.detach().numpy().astype("float64") for t in (x, w))
    expected = np.einsum(operands, a, b)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    weights = numbers(*y.shape, seed=2)
    # A gradient that is everywhere the same has no memory of its own.
    for gradient in (weights, torch.ones(()).expand(y.shape)):
        (found,) = torch.autograd.grad(y, x, gradient, retain_graph=True)
        left, right = operands.partition("->")[0].split(",")
        back = f"{operands.partition('->')[2]},{right}->{left}"
        wanted = np.einsum(back, gradient.double().numpy(), b)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)
    assert len(made) == 3


def test_a_gradient_has_a_gradient(made):
    x, w = numbers(3, 4, gradient=True), numbers(4, 5, seed=1)
    found = []
    for context in (products.frozen_products(), threading.Lock()):
        with context:
            y = torch.matmul(torch.tanh(x), w)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        found.append((first.detach(), second))
    assert len(made) == 4
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_result_is_no_view(made):
    x, w = numbers(2, 3, 4, gradient=True), numbers(4, 5, seed=1)
    with products.frozen_products():
        y = torch.matmul(x, w)
        torch.matmul(x, w).add_(1).sum().backward()
        assert not torch.matmul(x, w).detach_().requires_grad
    assert not y._is_view()
    assert made


def test_others_see_and_change_pytorchs_own(made):
    x, w = numbers(3, 4), numbers(4, 5, seed=1)
    with FlopCounterMode(display=False) as counter, products.frozen_products():
        torch.matmul(x, w)
    assert counter.get_total_flops() == 2 * 3 * 4 * 5
    with Doubles(), products.frozen_products():
        torch.testing.assert_close(torch.matmul(x, w), 2 * (x @ w))
    with torch.backends.mkldnn.flags(enabled=False), products.frozen_products():
        torch.matmul(x, w)
    assert made == []


def half(x, w):
    return torch.matmul(x.bfloat16(), w.bfloat16())


def double(x, w):
    return torch.matmul(x.double(), w.double())


def trained(x, w):
    return torch.matmul(x, w.requires_grad_())


def cast(x, w):
    with torch.autocast("cpu"):
        return torch.matmul(x, w)


def watched(x, w):
    with torch.autograd.graph.save_on_cpu():
        return torch.matmul(x, w)


def run_again(x, w):
    return torch.utils.checkpoint.checkpoint(torch.matmul, x, w, use_reentrant=False)


def transformed(x, w):
    return torch.func.grad(lambda x: torch.matmul(x, w).sum())(x)


def mapped(x, w):
    return torch.func.vmap(lambda x: torch.matmul(x[None], w))(x)


def traced(x, w):
    return torch.jit.trace(lambda x: torch.matmul(x, w), x.detach(), check_trace=False)(x)


def many(x, w):
    return torch.matmul(x, torch.stack([w, w]))


def named(x, w):
    return torch.matmul(input=x, other=w)


def vector(x, w):
    return torch.matmul(x[0], w)


class Doubles(TorchFunctionMode):
    """A mode of somebody else's."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        return 2 * result if function is torch.matmul else result


def sparse_weights(x, w):
    return torch.matmul(x, w.to_sparse_csr())


def sparse_rows(x, w):
    return torch.matmul(x.detach().to_sparse_coo(), w)


def overlapping(x, w):
    return torch.matmul(x, torch.arange(30.0).as_strided((4, 5), (2, 1)))


def within_dual_numbers(x, w):
    with torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.make_dual(x.detach(), torch.ones_like(x))
        return forward_ad.unpack_dual(torch.matmul(dual, w)).tangent


OTHERS = [
    sparse_weights,
    sparse_rows,
    overlapping,
    within_dual_numbers,
    half,
    double,
    trained,
    cast,
    watched,
    run_again,
    transformed,
    mapped,
    traced,
    many,
    named,
]


@pytest.mark.parametrize("function", [*OTHERS, vector], ids=lambda function: function.__name__)
def test_all_else_is_pytorchs_own(made, function):
    results = []
    for context in (products.frozen_products(), threading.Lock()):
        x, w = numbers(3, 4, gradient=True), numbers(4, 5, seed=1)
        with context:
            y = function(x, w)
        if y.requires_grad:
            y.float().square().sum().backward()
        results.append((y.detach(), x.grad))
    assert made == []
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_products_that_are_too_small_to_pay_are_pytorchs_own(monkeypatch):
    monkeypatch.setattr(products, "are_of_use", lambda: True)
    made = []
    monkeypatch.setattr(onednn, "_multiplied", lambda x, w: made.append(x.shape) or x @ w.t())
    with products.frozen_products(), torch.no_grad():
        for rows, width in ((2**6, 2**7), (2**6, 2**6), (3, 2**10), (3, 2**9), (4, 2**11)):
            torch.matmul(numbers(rows, width), numbers(width, 2**7))
        assert made == [(2**6, 2**7), (3, 2**10), (4, 2**11)]
        made.clear()
        # One row: not where the weights' rows lie a power of two apart.
        for width, columns in ((1001, 2**8), (1001, 255), (1001, 100)):
            torch.matmul(numbers(1, width), numbers(width, columns))
        assert made == [(1, 1001)]
        torch.matmul(numbers(1, 1001), numbers(2**8, 1001).t())
        torch.einsum("abc,cde->abde", numbers(1, 1, 1001), numbers(1001, 4, 2**6))
    assert made == [(1, 1001), (1, 1001)]


def test_a_product_of_other_sizes_is_refused_as_ever(made):
    for context in (products.frozen_products(), threading.Lock()):
        with context, pytest.raises(RuntimeError, match="cannot be multiplied"):
            torch.matmul(numbers(3, 4), numbers(5, 6))


def test_it_ends_with_its_block_and_is_of_one_thread(made):
    x, w = numbers(3, 4), numbers(4, 5)

    def elsewhere():
        torch.matmul(x, w)

    with products.frozen_products(), products.frozen_products():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert made == []
        torch.matmul(x, w)
    with pytest.raises(ZeroDivisionError), products.frozen_products():
        raise ZeroDivisionError
    torch.matmul(x, w)
    assert len(made) == 1


@pytest.mark.parametrize(
    ("said", "is_of_use"),
    [
        ("vendor_id\t: AuthenticAMD\n", True),
        ("vendor_id\t: HygonGenuine\n", True),
        ("AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD", True),
        ("vendor_id\t: GenuineIntel\n", False),
        ("CPU implementer\t: 0x41\n", False),
        ("", False),
    ],
)
def test_it_is_for_processors_that_mkl_was_not_made_for(monkeypatch, said, is_of_use):
    has_both = torch.backends.mkl.is_available() and onednn.is_available()
    monkeypatch.setattr(products, "_processor", lambda: said)
    try:
        products.are_of_use.cache_clear()
        assert products.are_of_use() is (is_of_use and has_both)
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
        products.are_of_use.cache_clear()
        assert products.are_of_use() is False
    finally:
        monkeypatch.undo()
        products.are_of_use.cache_clear()
