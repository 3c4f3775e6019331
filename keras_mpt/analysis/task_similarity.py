"""How alike the tasks became."""

from __future__ import annotations

import numpy as np

from keras_mpt.analysis.checks import task_names
from keras_mpt.arrays import to_numpy
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.models.tasks import multitask_config
from keras_mpt.prompts.cosines import cosines, cosines_of_products
from keras_mpt.types import Tensor


def task_similarity(model: PromptTunedModel, of: str = "factors") -> tuple[list[str], np.ndarray]:
    """Cosine similarity of each two tasks.

    Task k's prompt is P ∘ W_k with W_k = cols_k · rows_k. As all tasks share P, whole prompts are
    all much alike, with cosines near 1; what tells tasks apart is what each of them changed.

    Args:
        model: a prompt-tuned model with tasks.
        of: what is compared. `"factors"`: all entries of W_k − 1, which is how far the task went
            from the shared prompt; of W_k itself where factors start near 0
            (`task_init="normal"`, PEFT's). `"prompt"`: the mean of the prompt's tokens, as SPoT
            compares tasks. Defaults to `"factors"`.

    Returns:
        `(names, similarities)`: a list of T strings, and a float64 array (T, T). A task that has
        not left its start changed nothing that could be compared: its row and column are NaN.

    Raises:
        ValueError: a model without tasks, or an unknown `of`.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["a", "b"]
        )
        model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
        names, similarities = keras_mpt.analysis.task_similarity(model, of="prompt")
        assert names == ["a", "b"] and similarities.shape == (2, 2)
        ```

    Source: Vu et al. 2022 (arXiv 2110.07904), section 4.1, for `"prompt"`; the factors are those of
    Wang et al. 2023 (arXiv 2303.02861), section 3.
    """
    names = task_names(model)
    if of not in ("factors", "prompt"):
        raise ValueError(f"`of` should be 'factors' or 'prompt'. Received: of={of!r}")
    if of == "prompt":
        means = _mean_tokens(model)
        return names, cosines(means, means)
    state = model.prompt.get_peft_state_dict()
    start = 1.0 if multitask_config(model).task_init == "ones" else 0.0
    products = _products(state["prefix_task_cols"], state["prefix_task_rows"], start)
    return names, cosines_of_products(products)


def prompt_similarity(model: PromptTunedModel, prompts: Tensor) -> np.ndarray:
    """Cosine similarity of given prompts to the prompt of each of the model's tasks.

    Compared are means over tokens, so a prompt may be longer or shorter than the model's.

    Args:
        model: a prompt-tuned model with tasks.
        prompts: float array (N, L, d).

    Returns:
        A float64 array (N, T), NaN where a mean is zero.

    Raises:
        ValueError: a model without tasks, or prompts of another rank or width, or that are not
            finite.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["a", "b"]
        )
        model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
        similarities = keras_mpt.analysis.prompt_similarity(model, model.prompt([1]))
        assert similarities.shape == (1, 2)
        nearest = model.config.names[similarities[0].argmax()]
        ```

    Source: Vu et al. 2022 (arXiv 2110.07904), section 4.1.
    """
    task_names(model)
    prompts, width = to_numpy(prompts), model.config.token_dim
    if prompts.ndim != 3 or prompts.shape[1] == 0 or prompts.shape[2] != width:
        raise ValueError(
            f"`prompts` should have shape (N, num_virtual_tokens, {width}). Received: prompts of "
            f"shape {prompts.shape}"
        )
    means = prompts.mean(axis=1, dtype="float64")
    if not np.isfinite(means).all():
        raise ValueError("`prompts` should be finite. Received: prompts with NaN or infinity")
    return cosines(means, _mean_tokens(model))


def _mean_tokens(model: PromptTunedModel) -> np.ndarray:
    """The mean token of each task's prompt, (T, d), without making a prompt of T·L·d numbers."""
    state = model.prompt.get_peft_state_dict()
    shared, cols, rows = (
        state[name].astype("float64")
        for name in ("prompt_embeddings", "prefix_task_cols", "prefix_task_rows")
    )
    scaled = cols.transpose(0, 2, 1) @ shared  # (T, R, d)
    means: np.ndarray = (scaled * rows).sum(axis=1) / len(shared)
    return means


def _products(cols: np.ndarray, rows: np.ndarray, start: float) -> np.ndarray:
    """Inner products (T, T) of all W_k − start, token by token: T matrices (L, d) are large."""
    products = np.zeros((len(cols), len(cols)))
    for of_token in cols.astype("float64").transpose(1, 0, 2):
        change = np.einsum("tr,trd->td", of_token, rows.astype("float64")) - start
        products += change @ change.T
    return products
