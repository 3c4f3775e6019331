"""A Hugging Face masked language model as keras-hub's, which reads its backbone alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mpt import _keras
from keras_mpt.hugging_face.backbone import backbone_from_pretrained
from keras_mpt.hugging_face.checkpoint_config import read_checkpoint_config
from keras_mpt.hugging_face.mends import activation_of, epsilon_of
from keras_mpt.hugging_face.weights import names, open_weights, tensor
from keras_mpt.layer_settings import set_activation
from keras_mpt.splicing.positions import task_class
from keras_mpt.types import Config, Task

# What DistilBERT's norms have, whose configuration says none.
_EPSILON = 1e-12
_TABLE = "word_embeddings.weight"


class _Head(NamedTuple):
    """transformers' names of a head's parts."""

    dense: str
    norm: str
    bias: str
    decoder: str
    # Whether it has the exact GELU whatever the configuration says.
    has_gelu: bool = False


_HEADS = (
    _Head(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
        "cls.predictions.decoder.weight",
    ),
    _Head("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder.weight", True),
    _Head("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector.weight"),
    _Head(
        "predictions.dense",
        "predictions.LayerNorm",
        "predictions.bias",
        "predictions.decoder.weight",
    ),
)


def masked_lm_from_pretrained(folder: str | os.PathLike[str], dtype: Any = None) -> Any:
    """A keras-hub `MaskedLM` with the weights of a Hugging Face folder, its head's among them.

    keras-hub 0.32's own `MaskedLM.from_preset` reads the backbone of such a folder and leaves the
    head as it starts. Here the head is read too, and computes what transformers does:

        logits = LayerNorm(act(h W + b)) Eᵀ + c,   E the token embedding

    BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ALBERT and ESM, as keras-hub reads their backbones. A
    BERT's and an ALBERT's file must have the pooler that keras-hub's backbone has: published ones
    do, and those that transformers' `BertForMaskedLM` saves do not.

    Args:
        folder: string. A local folder, as `keras_mpt.backbone_from_pretrained` takes it.
        dtype: string or `keras.DTypePolicy`, of the model. Defaults to `None`: Keras's default,
            whatever the files hold.

    Returns:
        A `keras_hub.models.MaskedLM` without a preprocessor, for `keras_mpt.prompt_tune`.

    Raises:
        ValueError: what `backbone_from_pretrained` refuses, a backbone that keras-hub has no
            `MaskedLM` for, or a folder without a head's weights or with one that keras-hub's cannot
            be.

    Example:
        ```python
        import transformers

        config = transformers.RobertaConfig(
            vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2,
        )
        transformers.RobertaForMaskedLM(config).save_pretrained(tmp_path / "roberta")
        base = keras_mpt.masked_lm_from_pretrained(tmp_path / "roberta")
        model = keras_mpt.prompt_tune(base, keras_mpt.PromptTuningConfig(num_virtual_tokens=4))
        assert type(base).__name__ == "RobertaMaskedLM"
        ```

    Source: transformers' `modeling_*.py`; keras-hub `MaskedLMHead`.
    """
    path = Path(folder)
    config = read_checkpoint_config(path)
    backbone = backbone_from_pretrained(path, dtype)
    found = task_class("MaskedLM", backbone)
    if found is None:
        raise ValueError(
            "`folder` should hold a model that keras-hub has a MaskedLM for. Received: "
            f"folder={str(path)!r} with a {type(backbone).__name__}"
        )
    task = found(backbone=backbone, preprocessor=None)
    with open_weights(str(path)) as weights:
        _read_head(task, config, weights, str(path))
    return task


def _read_head(task: Task, config: Config, weights: Any, source: str) -> None:
    """Gives a task's head a file's weights, and what it computes with."""
    table = tensor(weights, _TABLE)  # First: what names there are is known once one was read.
    known = names(weights)
    head = next((h for h in _HEADS if {f"{h.dense}.weight", h.bias} <= known), None)
    if head is None:
        wanted = [h.bias for h in _HEADS]
        raise ValueError(
            f"`folder` should hold a masked language model, with one of {wanted} and the rest of "
            f"its head. Received: folder={source!r}, which has none of them"
        )
    layers = _keras.sublayers(task.masked_lm_head)
    (dense,) = (x for x in layers if isinstance(x, keras.layers.Dense))
    (norm,) = (x for x in layers if isinstance(x, keras.layers.LayerNormalization))
    own = {v.name: v for v in task.masked_lm_head.variables}

    def read(*candidates: str) -> np.ndarray:
        """The weight with the first of some names that the file has."""
        return tensor(weights, next((n for n in candidates if n in known), candidates[0]))

    dense.kernel.assign(read(f"{head.dense}.weight").T)
    dense.bias.assign(read(f"{head.dense}.bias"))
    # Published files have the names that TensorFlow had.
    norm.gamma.assign(read(f"{head.norm}.weight", f"{head.norm}.gamma"))
    norm.beta.assign(read(f"{head.norm}.bias", f"{head.norm}.beta"))
    own["output_bias"].assign(read(head.bias))
    (_, norm.epsilon) = epsilon_of(config) or ("", _EPSILON)
    said = activation_of(config["model_type"], config)
    set_activation(dense, "gelu" if head.has_gelu or said is None else said[1])
    decoder = read(head.decoder) if head.decoder in known else table
    if "output_kernel" in own:
        own["output_kernel"].assign(decoder.T)
    elif not np.array_equal(decoder, table):
        raise ValueError(
            "`folder` should hold a head tied to the token embedding, as keras-hub's "
            f"{type(task).__name__} has it. Received: folder={source!r} with a {head.decoder!r} of "
            "its own"
        )
