"""T5 from Hugging Face's file layout to keras-hub's model, which has no converter for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpt.checks import is_integer, is_number
from keras_mpt.files.config_files import read_json
from keras_mpt.files.shards import read_index
from keras_mpt.files.state_dict import check_shape, checked_array, read_state_dict
from keras_mpt.layer_settings import gelu_new

CONFIG_NAME, TOKENIZER_NAME = "config.json", "spiece.model"
WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")

HEAD = "lm_head.weight"
# One table under up to three names; which of them a file has depends on what wrote it.
TABLES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# The first T5 files hold this table, which no T5 reads: cross-attention has no position bias.
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

# What keras-hub's attention is built with, whatever its arguments.
FIXED = {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}

# What `backbone_from_pretrained` hands over to this file.
T5_KINDS = ("t5", "mt5", "umt5")


def t5_from_pretrained(directory: str | os.PathLike[str], dtype: Any = None) -> Any:
    """A `keras_hub.models.T5Seq2SeqLM` with the weights of a T5 in Hugging Face's layout.

    Reads T5 1.0, T5 1.1, Flan-T5 and mT5 (`model_type` "t5" and "mt5"), with a plain or gated
    feed-forward and a tied or separate head, from `config.json` and `model.safetensors` (or its
    shards, or `pytorch_model.bin`). The model computes what transformers' does:

        logits = h · s · Wᵀ,   W the head (V, d), s = d^-0.5 where the outputs are scaled, else 1

    keras-hub scales where W is the token embedding and only there. In the other cases the model
    gets a head of its own, s · W.

    Args:
        directory: string. A local folder.
        dtype: string or `keras.DTypePolicy`, of the model. Defaults to `None`: Keras's default,
            whatever the files hold.

    Returns:
        A `keras_hub.models.T5Seq2SeqLM`; its `backbone` is a `T5Backbone`. Where the folder has a
        `spiece.model` it comes with a preprocessor, else `preprocessor` is `None`.

    Raises:
        ValueError: a missing or broken file, another kind of model, a T5 that keras-hub's cannot
            compute, or weights that are missing, unknown or of another shape.
        ImportError: a `pytorch_model.bin` without PyTorch installed, or a `spiece.model` without
            sentencepiece.

    Example:
        ```python
        import transformers

        config = transformers.T5Config(
            vocab_size=100, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
        )
        transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
        t5 = keras_mpt.t5_from_pretrained(tmp_path / "t5")
        assert t5.backbone.hidden_dim == 16
        ```

    Source: transformers `models/t5/modeling_t5.py` and `configuration_t5.py`.
    """
    import keras_hub

    folder = Path(directory)
    if not (folder / CONFIG_NAME).is_file():
        raise ValueError(
            f"`directory` should be a folder with a {CONFIG_NAME}. Received: "
            f"directory={str(folder)!r}, which has none"
        )
    config = read_json(folder / CONFIG_NAME)
    arguments = _backbone_arguments(config, str(folder / CONFIG_NAME))
    preprocessor = _preprocessor(folder, arguments["vocabulary_size"])
    state = read_weights(folder)
    _check_sizes(state, arguments, str(folder))
    table, head = _table_and_head(state, config, str(folder))
    backbone = keras_hub.models.T5Backbone(
        **arguments, tie_embedding_weights=head is None, dtype=dtype
    )
    variables = _variables(backbone)
    _check_names(set(state), {*variables, table}, str(folder))
    embedding = backbone.token_embedding
    values = [(embedding.embeddings, _value(state, table, embedding.embeddings, str(folder)))]
    if head is not None:
        name, scale = head
        value = _value(state, name, embedding.reverse_embeddings, str(folder), transpose=True)
        values.append((embedding.reverse_embeddings, value * scale))
    for name, variable in variables.items():
        is_kernel = variable.name == "kernel"
        values.append((variable, _value(state, name, variable, str(folder), transpose=is_kernel)))
    for variable, value in values:
        variable.assign(value)
    return keras_hub.models.T5Seq2SeqLM(backbone=backbone, preprocessor=preprocessor)


def read_weights(directory: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The weights of a folder in Hugging Face's layout, from one file or from shards.

    Args:
        directory: string. A local folder. A `.safetensors` comes before a `.bin`.

    Returns:
        `{name: array}`, as `keras_mpt.read_state_dict`.

    Raises:
        ValueError: no such file, or a broken one; shards that are not what their index lists.
    """
    folder = Path(directory)
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return read_state_dict(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder / f"{name}.index.json")
    raise ValueError(
        f"`directory` should hold one of {list(WEIGHT_NAMES)}, or its .index.json and shards. "
        f"Received: directory={str(folder)!r}, which has none"
    )


_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "silu": "silu",
    "swish": "silu",
}


def _backbone_arguments(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """`T5Backbone`'s arguments but for the head's, after checking that it can compute this T5."""
    kind = config.get("model_type")
    if kind == "umt5":
        raise ValueError(
            "`model_type` should be 't5' or 'mt5': a umt5 has a position bias in every layer, "
            f"keras-hub's T5Backbone in the first one alone. Received: model_type='umt5' in "
            f"{source!r}"
        )
    if kind not in ("t5", "mt5"):
        raise ValueError(
            f"`model_type` should be 't5' or 'mt5'. Received: model_type={kind!r} in {source!r}"
        )
    sizes = {
        "vocabulary_size": _size(config, "vocab_size", source),
        "num_layers": _size(config, "num_layers", source),
        "num_heads": _size(config, "num_heads", source),
        "hidden_dim": _size(config, "d_model", source),
        "intermediate_dim": _size(config, "d_ff", source),
        "key_value_dim": _size(config, "d_kv", source),
    }
    fixed = {**FIXED, "num_decoder_layers": sizes["num_layers"]}
    for name, wanted in fixed.items():
        found = config.get(name)
        if found is not None and found != wanted:
            raise ValueError(
                f"`{name}` should be {wanted}: keras-hub's T5Backbone has no other. Received: "
                f"{name}={found!r} in {source!r}"
            )
    return {
        **sizes,
        **_feed_forward(config, source),
        "dropout": _number(config, "dropout_rate", 0.1, source),
        "layer_norm_epsilon": _number(config, "layer_norm_epsilon", 1e-6, source),
    }


def _feed_forward(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Activation and gate. transformers lets the two derived fields, where saved, come first."""
    default = "relu" if config["model_type"] == "t5" else "gated-gelu"
    projection = str(config.get("feed_forward_proj", default))
    derived = "gelu_new" if projection == "gated-gelu" else projection.removeprefix("gated-")
    name = config.get("dense_act_fn", derived)
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ValueError(
            f"`feed_forward_proj` should be one of {sorted(_ACTIVATIONS)}, or 'gated-' and one of "
            f"them. Received: feed_forward_proj={projection!r} with activation {name!r} in "
            f"{source!r}"
        )
    gated = config.get("is_gated_act", projection.startswith("gated-"))
    return {"activation": _ACTIVATIONS[name], "use_gated_activation": bool(gated)}


def _table_and_head(
    state: dict[str, np.ndarray], config: Mapping[str, Any], source: str
) -> tuple[str, tuple[str, float] | None]:
    """The key of the token embedding, and the key and scale of a head of its own, if it has one.

    Takes copies of the table, and what no T5 reads, out of `state`.
    """
    state.pop(UNUSED, None)
    says_tied = config.get("tie_word_embeddings") is not False
    names = [name for name in TABLES if name in state]
    if not names and says_tied and HEAD in state:
        names = [HEAD]
    table = (names or TABLES)[0]
    for name in names[1:]:
        if not np.array_equal(state[table], state[name]):
            raise ValueError(
                f"`{name}` in `{source}` should equal `{table}`: keras-hub's T5Backbone has one "
                f"token embedding. Received: {name} of shape {state[name].shape} with other values"
            )
        del state[name]
    if HEAD not in state and not says_tied:
        raise ValueError(
            f"`{source}` should hold '{HEAD}', as its tie_word_embeddings is False. Received: "
            f"{source} without ['{HEAD}']"
        )
    has_own_head = HEAD in state and not np.array_equal(state[HEAD], state.get(table, np.zeros(0)))
    # mT5 never scales. T5 says so itself since transformers 5, and before by an untied head.
    scales = config["model_type"] == "t5" and bool(config.get("scale_decoder_outputs", says_tied))
    if scales and not has_own_head:
        return table, None
    scale = _size(config, "d_model", source) ** -0.5 if scales else 1.0
    return table, (HEAD if has_own_head else table, scale)


def _variables(backbone: Any) -> dict[str, Any]:
    """The backbone's variables by transformers' keys, but for the token embedding and the head."""
    found: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        for i, layer in enumerate(getattr(backbone, f"{side}_transformer_layers")):
            prefix = f"{side}.block.{i}.layer"
            found |= {f"{prefix}.{k}": v for k, v in _layer_variables(layer).items()}
        norm = getattr(backbone, f"{side}_layer_norm")
        found[f"{side}.final_layer_norm.weight"] = norm.weight
    return found


def _layer_variables(layer: Any) -> dict[str, Any]:
    attentions = [("SelfAttention", layer.self_attention, layer.self_attention_layer_norm)]
    if layer.is_decoder:
        attentions.append(
            ("EncDecAttention", layer.cross_attention, layer.cross_attention_layer_norm)
        )
    found: dict[str, Any] = {}
    for i, (name, attention, norm) in enumerate(attentions):
        found[f"{i}.{name}.q.weight"] = attention.query_projector.kernel
        found[f"{i}.{name}.k.weight"] = attention.key_projector.kernel
        found[f"{i}.{name}.v.weight"] = attention.value_projector.kernel
        found[f"{i}.{name}.o.weight"] = attention.output_projector.kernel
        if attention.use_relative_attention_bias:
            bias = attention.relative_attention_bias
            found[f"{i}.{name}.relative_attention_bias.weight"] = bias
        found[f"{i}.layer_norm.weight"] = norm.weight
    last = len(attentions)
    if layer.use_gated_activation:
        found[f"{last}.DenseReluDense.wi_0.weight"] = layer.input_projector.kernel
        found[f"{last}.DenseReluDense.wi_1.weight"] = layer.gate_projector.kernel
    else:
        found[f"{last}.DenseReluDense.wi.weight"] = layer.input_projector.kernel
    found[f"{last}.DenseReluDense.wo.weight"] = layer.output_projector.kernel
    found[f"{last}.layer_norm.weight"] = layer.layer_norm.weight
    return found


def _check_names(found: set[str], wanted: set[str], source: str) -> None:
    missing, unknown = sorted(wanted - found), sorted(found - wanted - {HEAD})
    if missing or unknown:
        raise ValueError(
            f"`{source}` should hold the {len(wanted)} weights that its {CONFIG_NAME} asks for. "
            f"Received: {source} without {missing} and with unknown {unknown}"
        )


def _check_sizes(state: Mapping[str, Any], arguments: Mapping[str, Any], source: str) -> None:
    """Refuses sizes that the weights do not have, before anything is made of them."""
    block = f"encoder.block.{arguments['num_layers'] - 1}.layer"
    attention = arguments["num_heads"] * arguments["key_value_dim"]
    width, inner = arguments["hidden_dim"], arguments["intermediate_dim"]
    wanted = {
        f"{block}.0.SelfAttention.o.weight": (width, attention),
        f"{block}.1.DenseReluDense.wo.weight": (width, inner),
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
            FIXED["relative_attention_num_buckets"],
            arguments["num_heads"],
        ),
    }
    names = [name for name in (*TABLES, HEAD) if name in state]
    wanted |= {name: (arguments["vocabulary_size"], width) for name in names}
    _check_names(set(wanted) & set(state), set(wanted), source)
    for name, shape in wanted.items():
        check_shape(name, state[name].shape, shape, source)


def _value(
    state: Mapping[str, np.ndarray], name: str, variable: Any, source: str, transpose: bool = False
) -> np.ndarray:
    """A weight as the variable has it: PyTorch's kernels are (out, in), Keras's (in, out)."""
    shape = tuple(variable.shape)
    array = checked_array(name, state[name], shape[::-1] if transpose else shape, source)
    return array.T if transpose else array


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    shards = read_index(index)
    state = {}
    for file in sorted(set(shards.values())):
        held = read_state_dict(index.parent / file)
        listed = {name for name, where in shards.items() if where == file}
        if set(held) != listed:
            raise ValueError(
                f"`{file}` should hold what {index.name} lists for it. Received: {file} without "
                f"{sorted(listed - set(held))} and with {sorted(set(held) - listed)} in "
                f"{str(index.parent)!r}"
            )
        state.update(held)
    return state


def _preprocessor(folder: Path, vocabulary_size: int) -> Any:
    import keras_hub

    if not (folder / TOKENIZER_NAME).is_file():
        return None
    tokenizer = keras_hub.tokenizers.T5Tokenizer(proto=str(folder / TOKENIZER_NAME))
    if tokenizer.vocabulary_size() > vocabulary_size:
        raise ValueError(
            f"`vocab_size` should be at least the {tokenizer.vocabulary_size()} pieces of "
            f"{TOKENIZER_NAME}. Received: vocab_size={vocabulary_size} in {str(folder)!r}"
        )
    return keras_hub.models.T5Seq2SeqLMPreprocessor(tokenizer=tokenizer)


def _size(config: Mapping[str, Any], name: str, source: str) -> int:
    value = config.get(name)
    if not is_integer(value, least=1):
        raise ValueError(
            f"`{name}` should be a positive integer. Received: {name}={value!r} in {source!r}"
        )
    return int(value)


def _number(config: Mapping[str, Any], name: str, default: float, source: str) -> float:
    value = config.get(name, default)
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(
            f"`{name}` should be a number from 0 to less than 1. Received: {name}={value!r} in "
            f"{source!r}"
        )
    return float(value)
