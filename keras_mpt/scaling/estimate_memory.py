"""What a step of training takes of a device's memory, before anything is on it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras

from keras_mpt._keras import forget_deferred
from keras_mpt.checks import check_size
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.models.fitted import fitted
from keras_mpt.types import Backbone

# How many values a step keeps, as measured on processors (docs/scaling.md): for each number that a
# kernel gives, for each of a token's states, keys and values in a block, for each attention score
# and for each logit; and what is held beside them, in MiB.
_KEPT = {
    "tensorflow": (2.1, 2.0, 1.9, 3.0, 160),
    "jax": (2.0, 2.7, 3.2, 3.4, 115),
    "torch": (0.9, 5.5, 0.0, 2.9, 185),
}
# A prompt's number, its gradient, and Adam's two.
_COPIES = 4
_OF_TOKENS = (TaskType.CAUSAL_LM, TaskType.SEQ_2_SEQ_LM)


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """What a step takes, in bytes.

    Attributes:
        weights: the backbone.
        prompts: P and the factors, their gradients and Adam's state.
        activations: what the blocks keep for the way back.
        logits: those of a language model's tokens, and what their loss keeps.
        overhead: what compiling and Keras itself take.

    Example:
        ```python
        estimate = keras_mpt.MemoryEstimate(3 * 2**30, 2**20, 2**29, 0, 0)
        assert estimate.total == 3 * 2**30 + 2**20 + 2**29
        assert str(estimate).startswith("MemoryEstimate(3.5 GiB: weights 3.0 GiB")
        ```
    """

    weights: int
    prompts: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))

    def __repr__(self) -> str:
        shown = [f"{name} {_shown(size)}" for name, size in dataclasses.asdict(self).items()]
        return f"MemoryEstimate({_shown(self.total)}: {', '.join(shown)})"


def estimate_memory(
    backbone: Backbone, config: PromptTuningConfig, batch_size: int, length: int
) -> MemoryEstimate:
    """The memory that a step of training takes on one device, by the shapes of the weights.

    It is within 20% of peaks measured on a processor (docs/scaling.md says of which, and where
    not). Of several devices, give the rows of one; a backbone that is spread over n of them has 1/n
    of `weights` on each. A head is not counted, which is small, nor what `remat` saves.

    A backbone that is too large to be made here can be made without its values, for this alone:
    `with keras.StatelessScope(initialize_variables=False):`. It never gets them then.

    Args:
        backbone: a keras-hub `Backbone`.
        config: the config that a model would be made with.
        batch_size: int. B, the rows of a step on this device.
        length: int. S, the tokens of a row.

    Returns:
        A `MemoryEstimate`.

    Raises:
        ValueError: a size that is none, or a config that the backbone cannot have.

    Example:
        ```python
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=20, num_tasks=10
        )
        with keras.StatelessScope(initialize_variables=False):
            backbone = keras_hub.models.GPT2Backbone(
                vocabulary_size=50257, num_layers=12, num_heads=12, hidden_dim=768,
                intermediate_dim=3072,
            )
            estimate = keras_mpt.estimate_memory(backbone, config, batch_size=16, length=64)
        assert estimate.weights == 4 * 124_439_808
        ```
    """
    forget_deferred(backbone.variables)
    rows, tokens = check_size("batch_size", batch_size), check_size("length", length)
    of_task = None if config.task_type is None else TaskType(config.task_type)
    with keras.StatelessScope(initialize_variables=False):  # On PyTorch Keras wants values else.
        config, splice = fitted(config, backbone, of_task)
    size = keras.backend.standardize_dtype(backbone.compute_dtype)
    bytes_each = 2 if size.endswith("16") else 4
    virtual, width = int(config.num_virtual_tokens or 0), int(config.token_dim or 0)
    submodules = config.submodules
    numbers, tasks = submodules * virtual * width, 1
    if isinstance(config, MultitaskPromptTuningConfig):
        tasks, ranks = int(config.num_tasks), int(config.num_ranks)
        numbers += tasks * ranks * (submodules * virtual + width)
    blocks = int(getattr(backbone, "num_layers", 1))
    heads = int(getattr(backbone, "num_heads", 0) or getattr(backbone, "num_query_heads", 1))
    grouped = int(getattr(backbone, "num_key_value_heads", heads))
    is_causal = config.task_type == TaskType.CAUSAL_LM
    # A causal model runs a task's prompt once, whatever rows have it, and each row gets a copy of
    # its keys and values; others run it with each row, as it does with one after the text.
    is_shared = is_causal and not splice.is_after
    places = rows * tokens + min(tasks, rows) * virtual if is_shared else rows * (tokens + virtual)
    asking = tokens if is_shared else tokens + virtual
    scores = blocks * heads * rows * asking * (tokens + virtual)
    states = blocks * width * places
    if is_shared:
        states += blocks * rows * (tokens + virtual) * 2 * width * grouped // heads
    outputs = sum(_outputs(v, width) for v in backbone.weights) * places
    logits = rows * tokens * backbone.vocabulary_size if config.task_type in _OF_TOKENS else 0
    of_output, of_state, of_score, of_logit, overhead = _KEPT[keras.backend.backend()]
    kept = of_output * outputs + of_state * states + of_score * scores
    return MemoryEstimate(
        weights=sum(_bytes(v) for v in backbone.weights),
        prompts=4 * _COPIES * numbers,
        activations=int(kept * bytes_each),
        logits=int(logits * of_logit * 4),
        overhead=int(overhead * 2**20),
    )


def _outputs(variable: Any, width: int) -> int:
    """How many numbers a kernel gives for a token; 0 for what is no kernel."""
    shape = tuple(variable.shape)
    if len(shape) not in (2, 3) or not variable.path.endswith("kernel"):
        return 0
    return math.prod(shape[1:]) if shape[0] == width else int(shape[-1])


def _bytes(variable: Any) -> int:
    dtype = keras.backend.standardize_dtype(variable.dtype)
    bits = 8 if dtype.endswith("8") else 16 if dtype.endswith("16") else 32
    return math.prod(variable.shape) * bits // 8


def _shown(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
