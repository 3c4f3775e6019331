"""Where prompts start: the values that training begins with, as NumPy arrays.

Draws are NumPy's, so that one seed gives the same start on every backend.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpt.checks import is_integer, received
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_values import SOURCE_INITS, MultitaskPromptTuningInit, PromptTuningInit
from keras_mpt.files.adapter_files import AdapterFiles, read_steadily
from keras_mpt.files.config_files import OWN_CONFIG_NAME, read_json
from keras_mpt.files.state_dict import (
    SAFETENSORS_NAME,
    by_own_names,
    checked_array,
    read_state_dict,
)

# Enough rows of a token embedding to know its scale; a large vocabulary is not copied for it.
_SAMPLE_ROWS = 4096


def start_values(
    config: PromptTuningConfig,
    embed_tokens: Callable[[np.ndarray], np.ndarray],
    vocabulary_size: int,
    token_dim: int,
    tokenizer: Any = None,
    embedding_scale: np.ndarray | float = 1.0,
) -> dict[str, np.ndarray]:
    """The weights that a prompt starts with, under PEFT's names.

    Args:
        config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
        embed_tokens: function from ids (M, N) to their token embeddings (M, N, d), those of row i
            in the i-th of the token inputs that get a prompt.
        vocabulary_size: int. V.
        token_dim: int. d.
        tokenizer: a keras-hub tokenizer, for a TEXT start. Defaults to `None`.
        embedding_scale: array (M·L, 1). What a source file's P is divided by: see
            `adapters/embedding_scale.py`. Defaults to `1.0`.

    Returns:
        `prompt_embeddings` (M·L, d), and for a multitask config `prefix_task_cols` (T, M·L, R) and
        `prefix_task_rows` (T, R, d).

    Raises:
        ValueError: a text that tokenizes to nothing, no tokenizer, or a source that does not fit.

    Source: PEFT `tuners/prompt_tuning/model.py`, `tuners/multitask_prompt_tuning/model.py`.
    """
    # `keras.utils.set_random_seed` seeds NumPy's global generator, which the seed then comes from.
    rng = np.random.default_rng(seed_of(config))
    length, start = config.total_virtual_tokens, config.prompt_tuning_init
    shape = config.submodules, length // config.submodules
    if start in SOURCE_INITS:
        assert isinstance(config, MultitaskPromptTuningConfig)
        values = _from_source(config, token_dim, rng)
        return {**values, "prompt_embeddings": values["prompt_embeddings"] / embedding_scale}
    if start == PromptTuningInit.TEXT:
        ids = _tokenize(config, tokenizer, vocabulary_size)
        prompt = embed_tokens(fit_length(ids, length).reshape(shape))
    elif start == PromptTuningInit.SAMPLE_VOCAB:
        prompt = embed_tokens(rng.integers(0, vocabulary_size, shape))
    else:
        sample = rng.choice(vocabulary_size, min(vocabulary_size, _SAMPLE_ROWS), replace=False)
        spread = embed_tokens(np.tile(sample, (shape[0], 1))).std(axis=(1, 2), keepdims=True)
        prompt = rng.normal(0.0, spread, (*shape, token_dim))
    values = {"prompt_embeddings": prompt.reshape(-1, token_dim).astype("float32")}
    if isinstance(config, MultitaskPromptTuningConfig):
        values |= task_factors(config, token_dim, rng)
    return values


def seed_of(config: PromptTuningConfig) -> int:
    """The config's seed, or one that follows `keras.utils.set_random_seed`."""
    return int(np.random.randint(2**31)) if config.seed is None else config.seed


def fit_length(ids: np.ndarray, length: int) -> np.ndarray:
    """`ids` trimmed, or repeated and then trimmed, to `length`: PEFT's rule."""
    repeats = -(-length // len(ids))
    return np.tile(ids, repeats)[:length]


def task_factors(
    config: MultitaskPromptTuningConfig, token_dim: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Factors as `MultitaskPromptEmbedding(task_init=…)` starts them, from NumPy's generator.

    Args:
        config: a `MultitaskPromptTuningConfig`.
        token_dim: int. d.
        rng: NumPy's generator.

    Returns:
        `prefix_task_cols` (T, M·L, R) and `prefix_task_rows` (T, R, d).
    """
    cols = rng.normal(0.0, 0.02, (config.num_tasks, config.total_virtual_tokens, config.num_ranks))
    rows = rng.normal(0.0, 0.02, (config.num_tasks, config.num_ranks, token_dim))
    if config.task_init == "ones":
        cols[:, :, 0] = 1.0
        rows[:, 0], rows[:, 1:] = 1.0, 0.0
    return {
        "prefix_task_cols": cols.astype("float32"),
        "prefix_task_rows": rows.astype("float32"),
    }


def with_more_ranks(
    cols: np.ndarray, rows: np.ndarray, num_ranks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of a higher rank whose product is the same.

    The new rows are 0. So that they learn at once, and not all the same, the prompt's tokens are
    dealt out to them: token l reads new row l mod (number of new rows), by a 1 in its cols.

    Args:
        cols: float array (N, M·L, R).
        rows: float array (N, R, d).
        num_ranks: int, at least R.

    Returns:
        Arrays (N, M·L, num_ranks) and (N, num_ranks, d).
    """
    tasks, tokens, ranks = cols.shape
    added = num_ranks - ranks
    readers = np.arange(tokens)[:, None] % max(added, 1) == np.arange(added)
    more_cols = np.broadcast_to(readers, (tasks, tokens, added)).astype(cols.dtype)
    more_rows = np.zeros((tasks, added, rows.shape[2]), rows.dtype)
    return np.concatenate([cols, more_cols], axis=2), np.concatenate([rows, more_rows], axis=1)


def _tokenize(config: PromptTuningConfig, tokenizer: Any, vocabulary_size: int) -> np.ndarray:
    text = config.prompt_tuning_init_text
    if config.tokenizer_name_or_path:
        ids = _hugging_face_ids(config)
    elif tokenizer is not None:
        ids = np.asarray(tokenizer(text)).ravel()
    else:
        raise ValueError(
            "`tokenizer_name_or_path` should be given when prompt_tuning_init='TEXT', or the model "
            "a `preprocessor` or `tokenizer` of keras-hub. Received: tokenizer_name_or_path=None"
        )
    if len(ids) == 0:
        raise ValueError(
            "`prompt_tuning_init_text` should hold at least one token. Received: "
            f"prompt_tuning_init_text={text!r}, which tokenizes to nothing"
        )
    if ids.min() < 0 or ids.max() >= vocabulary_size:
        raise ValueError(
            "The tokenizer of a TEXT start should be the backbone's, with ids in "
            f"[0, {vocabulary_size}). Received: ids {ids.tolist()[:8]} for "
            f"prompt_tuning_init_text={text!r}"
        )
    return ids.astype("int32")


def _hugging_face_ids(config: PromptTuningConfig) -> np.ndarray:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(
            "`tokenizer_name_or_path` names a Hugging Face tokenizer, which needs `pip install "
            "transformers`; or leave it out and give the model a keras-hub tokenizer."
        ) from error
    # As in PEFT: a checkpoint must not be able to switch on remote code.
    kwargs = {k: v for k, v in (config.tokenizer_kwargs or {}).items() if k != "trust_remote_code"}
    tokenizer = AutoTokenizer.from_pretrained(config.tokenizer_name_or_path, **kwargs)
    return np.asarray(tokenizer(config.prompt_tuning_init_text)["input_ids"])


def _from_source(
    config: MultitaskPromptTuningConfig, token_dim: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The three starts from source tasks, for any number of target tasks."""
    path = config.prompt_tuning_init_state_dict_path
    assert path is not None
    state, names = _source(path)
    length, ranks, tasks = config.total_virtual_tokens, config.num_ranks, config.num_tasks
    prompt = _source_array(state, "prompt_embeddings", (length, token_dim), path)
    if config.prompt_tuning_init == MultitaskPromptTuningInit.ONLY_SOURCE_SHARED:
        return {"prompt_embeddings": prompt, **task_factors(config, token_dim, rng)}
    num_sources = _num_sources(state, path)
    cols = _source_array(state, "prefix_task_cols", (num_sources, length, ranks), path)
    rows = _source_array(state, "prefix_task_rows", (num_sources, ranks, token_dim), path)
    if config.prompt_tuning_init == MultitaskPromptTuningInit.AVERAGE_SOURCE_TASKS:
        cols, rows = (np.repeat(x.mean(0, keepdims=True), tasks, axis=0) for x in (cols, rows))
    else:
        sources = _source_indices(config, num_sources, names, path)
        cols, rows = cols[sources], rows[sources]
    return {"prompt_embeddings": prompt, "prefix_task_cols": cols, "prefix_task_rows": rows}


def _num_sources(state: dict[str, np.ndarray], path: str) -> int:
    cols = state.get("prefix_task_cols")
    if cols is None or cols.ndim != 3:
        raise ValueError(
            "`prompt_tuning_init_state_dict_path` should hold 'prefix_task_cols' of shape "
            "(num_tasks, num_virtual_tokens, num_ranks), as a multitask adapter does. Received: "
            f"{path!r} with {sorted(state)}"
        )
    return int(cols.shape[0])


def _source_array(
    state: dict[str, np.ndarray], name: str, shape: tuple[int, ...], path: str
) -> np.ndarray:
    value = state.get(name)
    if value is None:
        raise ValueError(
            f"`prompt_tuning_init_state_dict_path` should hold '{name}'. Received: {path!r} with "
            f"{sorted(state)}"
        )
    return checked_array(name, value, shape, path)


def _source_indices(
    config: MultitaskPromptTuningConfig, num_sources: int, names: list[str], path: str
) -> list[int]:
    """One source task per target task, as numbers."""
    given = config.prompt_tuning_init_task
    sources = given if isinstance(given, list) else [given] * config.num_tasks
    places = {name: k for k, name in enumerate(names)}
    indices = [places.get(s, s) if isinstance(s, str) else s for s in sources]
    for index, source in zip(indices, sources, strict=True):
        if not is_integer(index, 0, num_sources):
            raise ValueError(
                f"`prompt_tuning_init_task` should be a source task in [0, {num_sources})"
                + (f" or one of {received(names)}" if names else "")
                + f". Received: prompt_tuning_init_task={source!r} for {path!r}"
            )
    return [int(index) for index in indices if index is not None]


def _source(path: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """A source's weights, and the names of its tasks where keras_mpt wrote it."""
    file = Path(path)
    folder = file if file.is_dir() else file.parent
    if file not in (folder, folder / SAFETENSORS_NAME):
        own = read_json(folder / OWN_CONFIG_NAME) if (folder / OWN_CONFIG_NAME).is_file() else {}
        return by_own_names(read_state_dict(path)), _names(own)

    def parse(files: AdapterFiles) -> tuple[dict[str, np.ndarray], list[str]]:
        files.check_tied()
        return by_own_names(files.state), _names(files.own_fields or {})

    return read_steadily(folder, parse)


def _names(own: dict[str, Any]) -> list[str]:
    names = own.get("task_names")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
