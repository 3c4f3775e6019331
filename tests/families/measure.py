"""What is measured of a family: pure functions from a backbone to numbers.

Everything is compared with the backbone itself, or keras-hub's own task on it, on the longer
sequence `[prompt_ids; ids]`, so that nothing of the splice is in what it is compared with.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_mpt
from keras_mpt.splicing.positions import task_class
from keras_mpt.splicing.splice import Splice, token_table
from tests import tiny
from tests.families.run_once import run_once

LENGTH, ROWS, TOKENS, CLASSES = 3, 2, 5, 3
TASKS = ("TextClassifier", "CausalLM", "Seq2SeqLM", "MaskedLM")

# Where a masked language model is asked: no row has padding there.
PLACES = np.tile(np.arange(TOKENS - 2, dtype="int32"), (ROWS, 1))


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Numbers of one family on one backend. Errors are maximum absolute differences.

    Attributes:
        kind: "encoder", "causal" or "encoder-decoder".
        token_dim: width of the token embedding, where the prompt enters.
        hidden_dim: width of the backbone's states.
        scale: the largest number in the backbone's outputs.
        own_embeddings: the cut graph on the backbone's own embeddings against the backbone.
        real_tokens: a prompt of token embeddings against those tokens, on rows without padding.
        right_padding: the same on rows with padding on the right.
        gradient: the smallest over the prompt's rows of the largest gradient in the row.
        round_trip: the outputs of the model saved as `.keras` and loaded again against the model's.
        tasks: for each of keras-hub's tasks on the family, the error of its logits.
    """

    kind: str
    token_dim: int
    hidden_dim: int
    scale: float
    own_embeddings: float
    real_tokens: float
    right_padding: float
    gradient: float
    round_trip: float
    tasks: dict[str, float]


def measure(backbone: Any, folder: Path) -> Measurement:
    """Measures a backbone, whose weights are changed: each is moved by a draw of its own.

    Args:
        backbone: a `keras_hub.models.Backbone`.
        folder: where a model may be saved.

    Returns:
        A `Measurement`.
    """
    move_weights(backbone)
    submodules = sum(t.name.endswith("token_ids") for t in backbone.inputs)
    config = keras_mpt.PromptTuningConfig(
        num_virtual_tokens=LENGTH, num_transformer_submodules=submodules
    )
    model = keras_mpt.models.PromptTunedBackbone(backbone, config, initialize=False)
    at = model.splice.at
    ids = np.random.default_rng(1).integers(2, tiny.VOCABULARY, (submodules, LENGTH))
    prompt = keras.ops.concatenate(
        [
            token_table(t.embedding)(row)
            for t, row in zip(model.splice.token_inputs, ids, strict=True)
        ]
    )
    x = inputs_of(backbone)
    longer = with_tokens(model.splice.token_inputs, x, ids, at)
    tasks = {name: task_class(name, backbone) for name in tasks_of(backbone)}
    tasks = {name: build_task(name, task, backbone) for name, task in tasks.items()}
    tuned = {
        name: keras_mpt.prompt_tune(task, config, initialize=False) for name, task in tasks.items()
    }
    if "CausalLM" in tuned:  # The splice is measured here; `test_prefix_cache.py` compares with it.
        tuned["CausalLM"].share_prompts = False
    for prompted in (model, *tuned.values()):
        prompted.prompt.set_peft_state_dict(
            {"prompt_embeddings": keras.ops.convert_to_numpy(prompt)}
        )
    loaded = saved_and_loaded(model, folder / "model.keras")
    user = [i for i in range(LENGTH + TOKENS) if not at <= i < at + LENGTH]
    no_prompt = Splice(backbone, 0, submodules)

    def outputs() -> dict[str, Any]:
        """All that is compared."""
        found = {
            "backbone": backbone(longer),
            "own_embeddings": no_prompt(longer, np.zeros((ROWS, 0, prompt.shape[-1]), "float32")),
            "prompted": model(x),
            "loaded": loaded(x),
        }
        among = np.array(user)[PLACES]
        found |= {
            f"{name} on tokens": task(asked(name, longer, among)) for name, task in tasks.items()
        }
        found |= {f"{name} prompted": task(asked(name, x, PLACES)) for name, task in tuned.items()}
        return {name: keras.tree.flatten(value) for name, value in found.items()}

    models = (model, *tasks.values(), *tuned.values())
    copies = list(zip(loaded.weights, model.weights, strict=True))
    (variable,) = model.prompt.trainable_variables
    found, gradient = run_once(
        outputs, lambda: keras.tree.flatten(model(x)), variable, models, copies
    )
    expected = [user_positions(value, user) for value in found["backbone"]]
    return Measurement(
        kind=kind_of(backbone),
        token_dim=model.splice.token_dim,
        hidden_dim=int(expected[-1].shape[-1]),
        scale=float(np.max([np.abs(value).max() for value in found["backbone"]])),
        own_embeddings=error(found["own_embeddings"], found["backbone"]),
        real_tokens=error(found["prompted"], expected, rows=slice(0, None, 2)),
        right_padding=error(found["prompted"], expected, rows=slice(1, None, 2)),
        gradient=float(np.abs(gradient).max(axis=-1).min()),
        round_trip=error(found["loaded"], found["prompted"]),
        tasks={
            name: error(
                found[f"{name} prompted"],
                [user_positions(value, user) for value in found[f"{name} on tokens"]],
            )
            for name in tasks
        },
    )


def move_weights(backbone: Any) -> None:
    """Adds a draw to each weight: what starts at zero would hide the path that it is on."""
    rng = np.random.default_rng(0)
    for variable in backbone.trainable_variables:
        draw = rng.normal(size=variable.shape, scale=0.1)
        variable.assign(keras.ops.convert_to_numpy(variable) + draw)


def inputs_of(backbone: Any) -> dict[str, np.ndarray]:
    """Random inputs; odd rows are padded on the right. Positions are left to the model."""
    x = tiny.inputs(backbone, rows=ROWS, length=TOKENS)
    return {name: value for name, value in x.items() if not name.endswith("position_ids")}


def with_tokens(token_inputs: Any, x: dict[str, Any], ids: Any, at: int) -> dict[str, Any]:
    """The backbone's inputs with the prompt's tokens written into the ids, as a user would."""
    longer = {}

    def put(name: str | None, new: Any) -> None:
        if name is not None:
            old, new = x[name], np.broadcast_to(new, (ROWS, LENGTH)).astype(x[name].dtype)
            longer[name] = np.concatenate([old[:, :at], new, old[:, at:]], axis=1)

    for token_input, row in zip(token_inputs, ids, strict=True):
        put(token_input.name, row)
        put(token_input.mask_name, 1)
        for name in token_input.other_names:
            if name.endswith("position_ids"):
                longer[name] = np.tile(np.arange(LENGTH + TOKENS, dtype="int32"), (ROWS, 1))
            else:
                put(name, 0)
    return longer


def asked(name: str, x: dict[str, Any], places: Any) -> dict[str, Any]:
    """A task's inputs, with the places where a masked language model is asked for tokens."""
    return {**x, "mask_positions": places} if name == "MaskedLM" else x


def tasks_of(backbone: Any) -> list[str]:
    """Names of keras-hub's tasks on a backbone; a Seq2SeqLM is not listed as a CausalLM too."""
    found = [name for name in TASKS if task_class(name, backbone) is not None]
    return [n for n in found if not (n == "CausalLM" and "Seq2SeqLM" in found)]


def build_task(name: str, task: Any, backbone: Any) -> Any:
    """keras-hub's task on a backbone."""
    sizes = {"num_classes": CLASSES} if name == "TextClassifier" else {}
    return task(backbone=backbone, preprocessor=None, **sizes)


def kind_of(backbone: Any) -> str:
    """Which sort of transformer a backbone is, by its inputs and keras-hub's tasks."""
    if sum(t.name.endswith("token_ids") for t in backbone.inputs) > 1:
        return "encoder-decoder"
    return "encoder" if task_class("CausalLM", backbone) is None else "causal"


def saved_and_loaded(model: Any, path: Path) -> Any:
    """The model from its `.keras` file, after comparing every weight bit by bit."""
    model.save(path)
    loaded = keras.saving.load_model(path)
    path.unlink()
    for theirs, ours in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(theirs), keras.ops.convert_to_numpy(ours), ours.path
        )
    return loaded


def user_positions(value: Any, user: list[int]) -> Any:
    """`value` at the user's positions, where it has one entry per token."""
    per_token = value.ndim > 2 and value.shape[1] == LENGTH + TOKENS
    return value[:, user] if per_token else value


def error(found: list[Any], expected: list[Any], rows: slice = slice(None)) -> float:
    """The largest absolute difference; NaN where anything is not finite."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
    pairs = zip(found, expected, strict=True)
    return float(np.max([np.abs(ours[rows] - theirs[rows]).max() for ours, theirs in pairs]))
