"""Products of frozen weights by oneDNN, against NumPy, PyTorch's own and models without them."""

import threading

import keras
import numpy as np
import pytest

import keras_mpt
from keras_mpt.splicing import frozen_products as products
from tests import tiny
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


@pytest.fixture
def made(monkeypatch):
    """Every size of product is oneDNN's, on each processor; the shapes of the products so far."""
    if not onednn.is_available():
        pytest.skip("PyTorch is without oneDNN")
    shapes, multiplied = [], onednn._multiplied

    def noted(x, transposed):
        shapes.append((*x.shape, transposed.shape[0]))
        return multiplied(x, transposed)

    monkeypatch.setattr(products, "are_of_use", lambda: True)
    monkeypatch.setattr(onednn, "LEAST_MULTIPLICATIONS", 1)
    monkeypatch.setattr(onednn, "LEAST_ROWS", 1)
    monkeypatch.setattr(onednn, "_multiplied", noted)
    return shapes


def numbers(*shape, seed=0, gradient=False):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=shape), dtype=torch.float32, requires_grad=gradient)


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


def test_small_products_and_few_rows_are_pytorchs_own(monkeypatch):
    monkeypatch.setattr(products, "are_of_use", lambda: True)
    made = []
    monkeypatch.setattr(onednn, "_multiplied", lambda x, w: made.append(x.shape) or x @ w.t())
    with products.frozen_products(), torch.no_grad():
        for rows, width in ((2**6, 2**7), (2**6, 2**6), (3, 2**12), (4, 2**11)):
            torch.matmul(numbers(rows, width), numbers(width, 2**7))
    assert made == [(2**6, 2**7), (4, 2**11)]


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


def model_of(kind, seed=0, **kwargs):
    keras.utils.set_random_seed(seed)
    backbone = tiny.with_large_weights(tiny.backbone(kind, dropout=0.0))
    kinds = {"gpt2": "CAUSAL_LM", "llama": "CAUSAL_LM", "t5": "SEQ_2_SEQ_LM"}
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=kinds.get(kind, "SEQ_CLS"), num_virtual_tokens=3, num_tasks=2, seed=0
    )
    if kind not in kinds:
        kwargs["num_classes"] = 3
    model = keras_mpt.prompt_tune(backbone, config, **kwargs)
    model.compile(keras.optimizers.Adam(0.01))
    x = {**tiny.inputs(backbone), "task_ids": np.array([0, 1, 1, 0])}
    y = np.array([0, 1, 2, 1]) if "num_classes" in kwargs else np.arange(24).reshape(4, 6)
    return model, x, y


@pytest.mark.parametrize("kind", ["bert", "albert", "gpt2", "llama", "t5"])
def test_models_train_to_the_same_weights(made, monkeypatch, kind):
    found, counts = [], []
    for is_of_use in (True, False):
        monkeypatch.setattr(products, "are_of_use", lambda value=is_of_use: value)
        model, x, y = model_of(kind)
        before = [v.numpy().copy() for v in model.backbone.weights]
        losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
        for value, old in zip(model.backbone.weights, before, strict=True):
            np.testing.assert_array_equal(value.numpy(), old)
        weights = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
        found.append((losses, model.predict(x, verbose=0), weights))
        counts.append(len(made))
    assert counts[0] == counts[1] > 50
    (losses, outputs, weights), (other_losses, other_outputs, others) = found
    np.testing.assert_allclose(losses, other_losses, rtol=1e-5)
    np.testing.assert_allclose(outputs, other_outputs, rtol=1e-4, atol=1e-4)
    for value, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(value, other, atol=1e-4)


def test_what_a_user_runs_in_a_callback_is_pytorchs_own(made):
    model, x, y = model_of("bert")
    seen = []

    def ask(*_, **__):
        before = len(made)
        torch.matmul(numbers(3, 4), numbers(4, 5))
        seen.append(len(made) - before)

    call = keras.callbacks.LambdaCallback(on_train_batch_end=ask)
    model.fit(x, y, callbacks=[call], verbose=0)
    assert seen == [0] and len(made) > 10


@pytest.mark.parametrize("remat", [True, "scope"])
def test_blocks_that_run_once_more(made, monkeypatch, remat):
    gradients, counts = [], []
    for is_of_use in (True, False):
        monkeypatch.setattr(products, "are_of_use", lambda value=is_of_use: value)
        scope = keras.RematScope(mode="full" if remat == "scope" else None)
        with scope:
            model, x, y = model_of("gpt2", **({} if remat == "scope" else {"remat": True}))
        # A loop of one's own: on the way back nothing of ours is around.
        logits = model(x, training=True)
        loss = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
        loss.sum().backward()
        gradients.append([v.value.grad.numpy() for v in model.trainable_variables])
        counts.append(len(made))
    # Of Keras's own scope PyTorch must see the same on the way back, where none of this is.
    assert counts[0] == counts[1]
    assert (counts[0] > 10) is (remat is True)
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_it_generates_the_same_tokens(made, monkeypatch):
    tokens, counts = [], []
    for is_of_use in (True, False):
        monkeypatch.setattr(products, "are_of_use", lambda value=is_of_use: value)
        model, x, _ = model_of("gpt2")
        room = np.zeros((4, 6), "int32")
        x = {name: x[name] if x[name].ndim == 1 else np.hstack([x[name], room]) for name in x}
        for _ in range(4):  # As it is at first, then recorded, compared and replayed.
            found = model.generate(x, stop_token_ids=None)
        tokens.append(found["token_ids"])
        counts.append(len(made))
    assert counts[0] == counts[1] > 10
    np.testing.assert_array_equal(*tokens)


def test_exports_hold_nothing_of_it(made, tmp_path):
    model, x, _ = model_of("bert")
    model(x)
    assert made
    made.clear()
    model.export(tmp_path / "model.pt2", format="torch", verbose=False)
    assert made == []
