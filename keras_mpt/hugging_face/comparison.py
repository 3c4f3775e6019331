"""A backbone's numbers beside transformers' on a random batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.types import Backbone

# Rows and tokens: a short text shows every layer, and costs little beside loading.
_ROWS, _TOKENS = 2, 12
# Of the largest number. Two libraries' float32 differ by some 1e-6, a dropped epsilon by 1e-5 and
# more; half precision rounds each layer.
_FLOAT32, _HALF = 1e-5, 5e-2


def compare(backbone: Backbone, folder: Path) -> None:
    """Raises where a backbone's states differ from transformers' by more than rounding.

    Args:
        backbone: a keras-hub backbone.
        folder: path. What it was read from.

    Raises:
        ValueError: other numbers.
        ImportError: no transformers or no PyTorch.
    """
    model = _transformers_model(folder)
    # Padding, and what stands for an image, has a meaning of its own, which embeddings do not show.
    special = {v for k, v in model.config.to_dict().items() if k.endswith(("_id", "_index"))}
    ids = [i for i in range(backbone.token_embedding.input_dim) if i not in special]
    ids, answer = np.random.default_rng(0).choice(ids, size=(2, _ROWS, _TOKENS))
    theirs, ours = _transformers_states(model, ids, answer), _states(backbone, ids, answer)
    limit = _FLOAT32 if backbone.compute_dtype == "float32" else _HALF
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    if not difference <= limit:
        raise ValueError(
            f"`folder` should be a model whose numbers are transformers' to {limit:.0e} of the "
            f"largest. Received: folder={str(folder)!r}, whose {type(backbone).__name__} differs "
            f"by {difference:.1e}"
        )


def _states(backbone: Backbone, ids: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """The states after the last layer, a decoder's where there are two sides."""
    values = {
        "token_ids": ids,
        "encoder_token_ids": ids,
        "decoder_token_ids": answer,
        "segment_ids": np.zeros_like(ids),
        "position_ids": np.broadcast_to(np.arange(_TOKENS), ids.shape),
    }
    inputs = {t.name: values.get(t.name, np.ones_like(ids)) for t in backbone.inputs}
    outputs = backbone(inputs)
    if isinstance(outputs, dict):
        names = ("decoder_sequence_output", "sequence_output")
        outputs = next(outputs[name] for name in names if name in outputs)
    return to_numpy(outputs).astype("float32")


def _transformers_model(folder: Path) -> Any:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ImportError(
            "`verify=True` compares with transformers on PyTorch: "
            'pip install "keras-mpt[torch]" transformers'
        ) from error
    return transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()


def _transformers_states(model: Any, ids: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """As `_states`, of embeddings that are given, as PEFT gives them."""
    import torch

    embed = model.get_input_embeddings()
    with torch.no_grad():
        inputs = {"inputs_embeds": embed(torch.tensor(ids))}
        if model.config.is_encoder_decoder:
            embed = model.get_decoder().get_input_embeddings()
            inputs["decoder_inputs_embeds"] = embed(torch.tensor(answer))
        states: np.ndarray = model(**inputs).last_hidden_state.numpy()
    return states
