"""A Hugging Face folder as a keras-hub backbone that computes what transformers does."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from keras_mpt import _keras
from keras_mpt.checks import check_flag
from keras_mpt.hugging_face.checkpoint_config import (
    CONFIG_NAME,
    copied,
    is_tied,
    read_checkpoint_config,
)
from keras_mpt.hugging_face.comparison import compare
from keras_mpt.hugging_face.mends import mend
from keras_mpt.hugging_face.refusals import refuse
from keras_mpt.hugging_face.sentence_pooling import note_folder
from keras_mpt.hugging_face.sizes import check_sizes
from keras_mpt.hugging_face.t5 import T5_KINDS, t5_from_pretrained
from keras_mpt.hugging_face.weights import left_out, open_weights
from keras_mpt.types import Backbone, Config


def backbone_from_pretrained(
    folder: str | os.PathLike[str], dtype: Any = None, *, verify: bool = False
) -> Backbone:
    """A keras-hub backbone with the weights of a Hugging Face folder, and transformers' numbers.

    keras-hub 0.32's own `Backbone.from_preset` drops some of what a checkpoint's `config.json` says
    without a word, and computes with a constant of its own: an adapter that was trained with
    transformers then gives other logits. Here that is set right after loading: the epsilons of
    norms, activations, the scale of Gemma's queries, windows and wavelengths by layer, RoBERTa's
    row of segments, Mistral's weights as the file has them. What cannot be set right is refused by
    name.

    What stands in no argument of keras-hub's class is set on the layers. Prompt-tuned models keep
    it in their `.keras` files, and adapters note it; a bare `backbone.save(...)` loses it.

    Args:
        folder: string. A local folder with a `config.json` and weights as safetensors, in one file
            or in shards; of a T5 whatever `keras_mpt.t5_from_pretrained` reads.
        dtype: string or `keras.DTypePolicy`, of the model. Defaults to `None`: Keras's default,
            whatever the files hold.
        verify: bool. Whether to compare the numbers with transformers' on a random batch, for which
            transformers and PyTorch must be installed; the model is loaded twice. Defaults to
            `False`.

    Returns:
        A `keras_hub.models.Backbone`.

    Raises:
        ValueError: a missing or broken file, a kind of model that keras-hub does not read, a
            configuration or weights that its model cannot compute, or with `verify` numbers that
            differ.
        ImportError: `verify` without transformers or PyTorch.

    Example:
        ```python
        import transformers

        config = transformers.LlamaConfig(
            vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-5,
        )
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
        backbone = keras_mpt.backbone_from_pretrained(tmp_path / "llama", verify=True)
        assert backbone.layers[-1].epsilon == 1e-5
        ```

    Source: keras-hub `utils/transformers/`; transformers' `configuration_*.py` and `modeling_*.py`.
    """
    verify, path = check_flag("verify", verify), Path(folder)
    config = read_checkpoint_config(path)
    if config["model_type"] in T5_KINDS:
        backbone = t5_from_pretrained(path, dtype).backbone
    else:
        backbone = _read(path, config, dtype)
    if verify:
        compare(backbone, path)
    note_folder(backbone, path)
    return backbone


# What some converters leave at the default of keras-hub's class, though the class takes it.
_ARGUMENTS = {"num_segments": "type_vocab_size", "dropout": "hidden_dropout_prob"}


def _read(path: Path, config: Config, dtype: Any) -> Backbone:
    source = str(path / CONFIG_NAME)
    try:
        refuse(config, source)
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(
            f"`{CONFIG_NAME}` should hold transformers' configuration of a model. Received: "
            f"{source!r}, in which {type(error).__name__}: {error}"
        ) from error
    try:
        converter = _keras.hub_converter(str(path), config)
        arguments = converter.convert_backbone_config(copied(config))
        arguments |= _dropped_arguments(converter.backbone_cls, arguments, config)
        check_sizes(arguments, path)
        backbone = converter.backbone_cls(**arguments, dtype=dtype)
        with open_weights(str(path)) as weights:
            converter.convert_weights(backbone, weights, copied(config))
            mend(backbone, config, weights)
            dropped = left_out(weights, is_tied(config))
    # Whatever a converter meets where a field or a weight is missing, or is another thing.
    except (OSError, KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"`folder` should hold a model that keras-hub reads, its {CONFIG_NAME} and its weights "
            f"as safetensors. Received: folder={str(path)!r}, of which keras-hub says "
            f"{type(error).__name__}: {error}"
        ) from error
    if dropped:
        raise ValueError(
            f"`folder` should hold weights that a {type(backbone).__name__} has. Received: "
            f"folder={str(path)!r} with {len(dropped)} that it has no place for, such as "
            f"{dropped[:4]}"
        )
    return backbone


def _dropped_arguments(cls: type[Any], arguments: Config, config: Config) -> Config:
    known = inspect.signature(cls).parameters
    return {
        name: config[field]
        for name, field in _ARGUMENTS.items()
        if name in known and name not in arguments and field in config
    }
