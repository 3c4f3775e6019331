"""A prompt-tuned model of a prompt that is nothing but its numbers."""

from __future__ import annotations

import os
from typing import Any

from keras_mpt.checks import check_flag
from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.models.prompt_tune import not_a_base, prompt_tune
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.serving.prompt_files import read_prompts
from keras_mpt.splicing.cut import cut
from keras_mpt.types import Backbone, Task


def load_prompt(
    base: Backbone | Task,
    path: str | os.PathLike[str],
    task_type: str | None = None,
    *,
    scaled: bool = True,
    prompt_position: str = "before",
    **kwargs: Any,
) -> PromptTunedModel:
    """A model with one ordinary prompt from a file that holds its tensor (L, d) and nothing else.

    So older servers of prompts keep them, and `model.export_prompt_embeds` writes them. L is read
    off the tensor. It can be trained on.

    Args:
        base: as in `prompt_tune`.
        path: string. A file of one tensor, float of any width: `.pt`, `.pth` or `.bin` (needs
            PyTorch; nothing that a file may carry is run), `.safetensors` or `.npy`. Or a folder as
            TGIS has them: with `decoder.pt`, for an encoder-decoder with `encoder.pt` or both. A
            file is an encoder-decoder's encoder's.
        task_type: string. What a bare backbone becomes, as in a config. Defaults to `None`:
            "CAUSAL_LM", or "SEQ_2_SEQ_LM" for an encoder-decoder. A keras-hub task says it itself.
        scaled: bool. As in `export_prompt_embeds`: whether the numbers are as transformers has them
            after its token embedding. Defaults to `True`.
        prompt_position: string. Where the prompt stands, as in a config: a file does not say it.
            Defaults to `"before"`, where servers put it.
        **kwargs: further arguments of the model, such as `preprocessor`.

    Returns:
        As `prompt_tune`, with a `PromptTuningConfig`.

    Raises:
        ValueError: no such file, a broken or foreign one, one of several tensors, a tensor of
            another rank, width or dtype, or one that is not finite; or what `prompt_tune` refuses.
        ImportError: a file of PyTorch's without PyTorch installed.

    Example:
        ```python
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        np.save(tmp_path / "prompt.npy", np.ones((4, 8), "float32"))
        model = keras_mpt.load_prompt(backbone, tmp_path / "prompt.npy")
        assert model.config.num_virtual_tokens == 4
        ```

    Source: IBM's text-generation-inference, `server/text_generation_server/prompt_cache.py`.
    """
    scaled, backbone = check_flag("scaled", scaled), getattr(base, "backbone", base)
    if not hasattr(backbone, "inputs"):
        raise not_a_base(base)
    graph = cut(backbone)
    has_encoder = len(graph.token_inputs) > 1
    prompts = read_prompts(path, has_encoder)
    submodules, length, found = prompts.shape
    width = int(graph.rest.inputs[0].shape[-1])
    if found != width:
        raise ValueError(
            f"`path` should hold a prompt of width {width}, that of the backbone's token "
            f"embedding. Received: path={os.fspath(path)!r} with a tensor of shape "
            f"{(length, found)}"
        )
    if task_type is None and base is backbone:
        task_type = TaskType.SEQ_2_SEQ_LM if has_encoder else TaskType.CAUSAL_LM
    config = PromptTuningConfig(
        task_type=task_type,
        num_virtual_tokens=length,
        num_transformer_submodules=submodules,
        prompt_position=prompt_position,
    )
    model = prompt_tune(base, config, **kwargs, initialize=False)
    values = prompts.reshape(submodules * length, width)
    if scaled:
        values = values / model.embedding_scale
    model.prompt.set_peft_state_dict({"prompt_embeddings": values}, os.fspath(path))
    return model
