"""Prompts in files that other servers read."""

from __future__ import annotations

import os
import warnings

import numpy as np

from keras_mpt.checks import check_flags
from keras_mpt.files.tensor_file import check_format, tensor_bytes
from keras_mpt.fitting.frozen import check_frozen
from keras_mpt.serving.prompt_files import PromptFiles, files_for, one_file
from keras_mpt.serving.prompts import HasPrompts, checked_task, prompts_of


def export_prompt_embeds(
    self: HasPrompts,
    task: str | int | None,
    path: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    scaled: bool = True,
    overwrite: bool = False,
) -> None:
    """Writes one task's folded prompt P ∘ (cols · rows) as a single tensor (L, d).

    What servers of prompts take: vLLM as a part of a chat's `prompt_embeds`, TGIS as `decoder.pt`.
    Where a server takes the embeddings of the whole input, `prompt_embeds` of a causal model gives
    these. `keras_mpt.load_prompt` reads what is written. A head is not in it. It is written whole
    or not at all.

    Args:
        task: string or int. The task's name or id; `None` of a model without tasks.
        path: string. A file that ends in `.pt` (`torch.save`, for which PyTorch must be installed),
            `.safetensors` (with the tensor as `prompt_embeddings`, needs no PyTorch) or `.npy`; or
            a folder, for TGIS: `decoder.pt` is written there, and of an encoder-decoder
            `encoder.pt`, with `decoder.pt` where its decoder has a prompt too.
        dtype: `"float32"`, `"float16"` or, not for `.npy`, `"bfloat16"`. Defaults to `"float32"`.
        scaled: bool. Gemma and its kin multiply token embeddings by √d. `True` gives numbers that
            have been multiplied, as transformers' `inputs_embeds` take them, and vLLM; `False`
            numbers in the token table's scale, for servers that multiply all that they are given:
            SGLang's Gemma 1 and 2, transformers before 5.4 and vLLM before March 2026 for these
            two. Other backbones' are the same either way. Defaults to `True`.
        overwrite: bool. Whether to replace what is there. Defaults to `False`.

    Raises:
        ValueError: a task that the model does not have, a path of another kind or that is there, a
            dtype that cannot hold the numbers, a prompt that is not finite or that does not stand
            where the folder's readers put it, or a backbone that is not frozen.
        ImportError: a `.pt` file without PyTorch.

    Example:
        ```python
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=2, task_names=["tone", "topic"]
        )
        model = keras_mpt.prompt_tune(backbone, config)
        model.export_prompt_embeds("topic", tmp_path / "topic.npy")
        assert np.load(tmp_path / "topic.npy").shape == (4, 8)
        ```

    Source: vLLM `docs/features/prompt_embeds.md`, `renderers/embed_utils.py` and pull request
    36787; SGLang `srt/models/gemma2.py`; IBM's text-generation-inference,
    `server/text_generation_server/prompt_cache.py`.
    """
    check_flags({"scaled": scaled, "overwrite": overwrite})
    check_frozen(self)
    task_id, splice = checked_task(self, task), self.splice
    has_encoder = len(splice.token_inputs) > 1
    files = files_for(path, has_encoder, splice.num_transformer_submodules, splice.prompt_position)
    check_format(files.suffix, dtype)
    if splice.prompt_position != "before":
        warnings.warn(
            "The file holds the prompt's numbers alone, and this model's prompt does not stand in "
            "front of all tokens, where servers put it: "
            f"`keras_mpt.load_prompt(…, prompt_position={splice.prompt_position!r})` reads it as "
            "it is here.",
            stacklevel=2,
        )
    prompts = prompts_of(self, None if task_id is None else [task_id], scaled)[0]
    _write(files, list(prompts), dtype, overwrite)


def export_prompt_table(
    self: HasPrompts,
    path: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    scaled: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes all tasks' prompts as the one table (T, L, d) that TensorRT-LLM looks them up in.

    Row k is the task with id k: it is what `prompt_tasks` names. A prompt's L virtual tokens have
    the ids V, V + 1, …, V + L − 1 in every task, for a vocabulary of V, and the client puts them
    before the text's own. A model without tasks gives (1, L, d).

    Args:
        path: string. A file that ends in `.npy`.
        dtype: `"float32"` or `"float16"`; TensorRT-LLM casts it to its engine's. Defaults to
            `"float32"`.
        scaled: bool. As in `export_prompt_embeds`. TensorRT-LLM's Gemma multiplies what it looks
            up in the table as well, so its numbers are the token table's. Defaults to `False`.
        overwrite: bool. Whether to replace what is there. Defaults to `False`.

    Raises:
        ValueError: a path of another kind or that is there, a dtype that cannot hold the numbers, a
            prompt that is not finite, a model whose encoder and decoder both have prompts, or a
            backbone that is not frozen.

    Example:
        ```python
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=3
        )
        keras_mpt.prompt_tune(backbone, config).export_prompt_table(tmp_path / "prompts.npy")
        assert np.load(tmp_path / "prompts.npy").shape == (3, 4, 8)
        ```

    Source: TensorRT-LLM `layers/embedding.py` (`PromptTuningEmbedding`), `runtime/model_runner.py`,
    `models/gemma/model.py`, `examples/models/core/gpt/nemo_prompt_convert.py`.
    """
    check_flags({"scaled": scaled, "overwrite": overwrite})
    check_frozen(self)
    files = one_file(path, (".npy",))
    check_format(files.suffix, dtype)
    submodules = self.splice.num_transformer_submodules
    if submodules > 1:
        raise ValueError(
            "`num_transformer_submodules` should be 1 for a table, which has one prompt for each "
            "task; `export_prompt_embeds` writes those of an encoder and a decoder. Received: "
            f"num_transformer_submodules={submodules}"
        )
    tasks = list(range(len(self.model_inputs.task_names))) or None
    _write(files, [prompts_of(self, tasks, scaled)[:, 0]], dtype, overwrite)


def _write(files: PromptFiles, prompts: list[np.ndarray], dtype: str, overwrite: bool) -> None:
    contents = [tensor_bytes(prompt, files.suffix, dtype) for prompt in prompts]
    files.write(dict(zip(files.names, contents, strict=True)), overwrite)
