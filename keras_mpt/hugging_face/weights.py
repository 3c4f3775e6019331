"""A checkpoint's weights as keras-hub's converters ask for them, and which of them they left."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpt import _keras
from keras_mpt.files.shards import read_index

INDEX_NAME = "model.safetensors.index.json"

# Where a model has no output matrix of its own, its file has none: the token table serves.
_HEAD, _TABLE = "lm_head.weight", "embed_tokens.weight"
# What transformers 5 writes where published files, and keras-hub's converters, have the former.
_OTHER_NAMES = (
    ("LayerNorm.weight", "LayerNorm.gamma"),
    ("LayerNorm.bias", "LayerNorm.beta"),
    ("model.language_model.", "model."),
)
# What files hold that is computed and not learned; that only images or sounds need; and a table of
# positions that ESM's files have beside rotary ones.
_NOT_FOR_TEXT = re.compile(
    r"(inv_freq|position_ids|token_type_ids|masked_bias|attn\.bias)$|rotary_emb\."
    r"|vision|visual|audio|multi_modal|eoi_embedding|^esm\.embeddings\.position_embeddings"
)
# What is added, so that zeros there change nothing.
_ADDED = re.compile(r"(bias|embeddings\.weight)$")
# What BART adds to its logits stands in no layer.
_LOGITS_BIAS = "final_logits_bias"


class _Unrounded(np.ndarray):
    """An array that no conversion makes coarser: keras-hub rounds Mistral's to float16."""

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        if np.dtype(dtype) == np.float16:
            return self
        return super().astype(dtype, *args, **kwargs)


def open_weights(folder: str) -> Any:
    """The weights of a folder, to be used as a context.

    Args:
        folder: string. It has a `model.safetensors`, or its shards and their index.

    Returns:
        What keras-hub's converters take as their `loader`, which notes what they read.

    Raises:
        ValueError: an index that leads out of the folder.
    """
    if (Path(folder) / INDEX_NAME).is_file():
        read_index(Path(folder) / INDEX_NAME)  # keras-hub would follow any path in it.
    parent = _keras.hub_weights()

    class Weights(parent):  # type: ignore[misc, valid-type]
        """Gives tensors as the file has them, and the token table for a head that is tied to it."""

        def __init__(self) -> None:
            super().__init__(folder)
            self.read: set[str] = set()
            # The names in each file: a file of safetensors cannot be asked quickly.
            self.known: dict[int, set[str]] = {}

        def get_prefixed_key(self, hf_weight_key: str, dict_like: Any) -> str:
            key: str = super().get_prefixed_key(hf_weight_key, dict_like)
            known = self.known.get(id(dict_like)) or set(dict_like.keys())
            self.known[id(dict_like)] = known
            if key not in known:
                key = self.other_name(hf_weight_key, dict_like, known)
            self.read.add(key)
            return key

        def other_name(self, key: str, dict_like: Any, known: set[str]) -> str:
            """What a file has in the place of a name that it does not have, or that name."""
            for pair in _OTHER_NAMES:
                other: str = super().get_prefixed_key(key.replace(*pair), dict_like)
                if other in known:
                    return other
            tables = [name for name in known if name.endswith(_TABLE)]
            return tables[0] if key.endswith(_HEAD) and len(tables) == 1 else key

        def get_tensor(self, hf_weight_key: str) -> Any:
            return np.asarray(super().get_tensor(hf_weight_key)).view(_Unrounded)

    return Weights()


def left_out(weights: Any, is_tied: bool) -> list[str]:
    """The weights that change a text's numbers and that nothing read.

    They stand in a layer of which something was read. Heads of other tasks do not, and zeros that
    would be added change nothing.

    Args:
        weights: what `open_weights` gave, after a converter read it.
        is_tied: bool. Whether the token table serves for logits, where a head in the file is not
            another one: then transformers takes the head.

    Returns:
        A sorted list of names.
    """
    read = set(weights.read)
    modules = {name.rpartition(".")[0] for name in read}
    parents = {name.rpartition(".")[0] for name in modules} - {""}
    always = (_LOGITS_BIAS,) if is_tied and _head_is_table(weights) else (_LOGITS_BIAS, _HEAD)
    found = []
    for name in names(weights) - read:
        module = name.rpartition(".")[0]
        is_in_layer = module in modules or module.rpartition(".")[0] in parents
        counts = name in always or (is_in_layer and not _NOT_FOR_TEXT.search(name))
        if counts and not (_ADDED.search(name) and not np.any(tensor(weights, name))):
            found.append(name)
    return sorted(found)


def _head_is_table(weights: Any) -> bool:
    """Whether a file's head, if it has one, is a copy of its token table."""
    found = names(weights)
    tables = [name for name in found if name.endswith(_TABLE)]
    if _HEAD not in found or len(tables) != 1:
        return True
    return np.array_equal(tensor(weights, _HEAD), tensor(weights, tables[0]))


def names(weights: Any) -> set[str]:
    """The names of all weights in the files that were opened."""
    if weights.safetensor_config is not None:
        return set(weights.safetensor_config["weight_map"])
    return {name for file in weights.safetensor_files.values() for name in list(file.keys())}


def tensor(weights: Any, name: str) -> np.ndarray:
    """A weight in float32, by its name in the file."""
    return np.asarray(weights.get_tensor(name), "float32")
