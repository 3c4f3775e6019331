"""What the tests and `report.py` measure: PEFT and keras_mpt on the same weights and inputs.

Every function gives a number: a largest difference, relative to the largest value of what PEFT or
transformers computes.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import peft
import torch
from keras import ops

import keras_mpt
from tests.parity.families import Family

LENGTH, TASKS, RANKS, ROWS, TOKENS = 5, 3, 2, 4, 7
PADDING = 1  # What ESM's graph takes its mask from, and RoBERTa counts its positions from.
TASK_IDS = [0, 2, 1, 2]


@dataclasses.dataclass
class Pair:
    """A family's model in transformers, wrapped by PEFT, and keras-hub's of the same weights."""

    family: Family
    base: Any
    model: Any
    backbone: Any
    folder: Path


def make_pair(family: Family, folder: Path) -> Pair:
    """Saves a random model and a random adapter of PEFT, and loads keras-hub's backbone."""
    torch.manual_seed(0)
    base = family.make().eval()
    _randomize(base)
    if family.randomized is not None:
        family.randomized(base)
    base.save_pretrained(folder / "base")
    if family.adjust is not None:
        family.adjust(base, folder / "base")
    _update_json(folder / "base" / "config.json", family.published)
    if family.task_type == "FEATURE_EXTRACTION":
        base = base.base_model
    sizes = {"num_virtual_tokens": LENGTH, "num_tasks": TASKS, "num_ranks": RANKS}
    # PEFT does not find these by itself in every configuration.
    sizes |= {"token_dim": base.get_input_embeddings().weight.shape[1], "num_layers": 2}
    sizes["num_attention_heads"] = 2
    config = peft.MultitaskPromptTuningConfig(task_type=family.task_type, **sizes)
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for weight in model.prompt_encoder.parameters():
            weight.normal_()
    model.save_pretrained(folder / "peft")
    backbone = keras_hub.models.Backbone.from_preset(str(folder / "base"))
    assert type(backbone).__name__ == family.backbone
    return Pair(family, base, model, backbone, folder)


def data() -> dict[str, np.ndarray]:
    """Token ids and ids for a decoder, with padding on the right in every second row."""
    rng = np.random.default_rng(0)
    ids, decoder_ids = (rng.integers(4, 50, (ROWS, TOKENS)) for _ in range(2))
    mask = np.ones_like(ids)
    mask[1::2, TOKENS - 3 :] = 0
    return {"ids": ids * mask + PADDING * (1 - mask), "mask": mask, "decoder_ids": decoder_ids}


def base_difference(pair: Pair) -> float:
    """How far keras-hub's own model is from transformers' without any prompt."""
    # As long as prompt and tokens together are in the other measurements.
    rng = np.random.default_rng(1)
    ids = rng.integers(4, 50, (ROWS, LENGTH + TOKENS))
    mask = np.ones_like(ids)
    mask[1::2, -3:] = 0
    ids = ids * mask + PADDING * (1 - mask)
    task_type, base = pair.family.task_type, pair.base
    arguments = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    x = {"token_ids": ids, "padding_mask": mask}
    if task_type == "SEQ_2_SEQ_LM":
        arguments["decoder_input_ids"] = torch.tensor(ids)
        arguments["decoder_attention_mask"] = torch.tensor(mask)
        x = _both_sides(ids, mask, ids, mask)
    with torch.no_grad():
        theirs = _states(base(**arguments))
    outputs = pair.backbone(_known(pair.backbone, x))
    head = keras_mpt.prompt_tune(pair.backbone, _config(pair)).to_logits if _is_lm(pair) else None
    ours = _sequence_output(outputs) if head is None else head(keras.tree.flatten(outputs))
    return difference(ops.convert_to_numpy(ours), theirs, mask)


def import_error(pair: Pair) -> float:
    """How far our model with PEFT's adapter is from PEFT's."""
    ours = keras_mpt.load_adapter(pair.backbone, pair.folder / "peft")
    return logits_difference(pair, ours, pair.model)


def export_error(pair: Pair) -> float:
    """How far PEFT's model with our adapter is from ours; PEFT must not warn."""
    ours = keras_mpt.load_adapter(pair.backbone, pair.folder / "peft")
    rng = np.random.default_rng(2)
    for variable in ours.prompt.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    ours.save_adapter(pair.folder / "ours", overwrite=True)
    return logits_difference(pair, ours, open_in_peft(pair, pair.folder / "ours"))


def open_in_peft(pair: Pair, directory: Path) -> Any:
    """PEFT's model from an adapter's directory. Any warning is an error."""
    base = copy.deepcopy(pair.base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # transformers warns of itself whenever PEFT wraps a model, whatever the adapter.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        return peft.PeftModel.from_pretrained(base, directory).eval()


def logits_difference(pair: Pair, ours: Any, theirs: Any) -> float:
    """Between our model and PEFT's on mixed tasks with padding, at the user's positions."""
    with torch.no_grad():
        expected = peft_outputs(pair, theirs)
    x = our_inputs(pair)
    found = ops.convert_to_numpy(_sequence_output(ours({**x, "task_ids": TASK_IDS})))
    used = data()["mask"]
    # What the tasks' prompts do must be far above what is compared.
    other = ops.convert_to_numpy(_sequence_output(ours({**x, "task_ids": [1, 1, 2, 0]})))
    assert difference(other, found, used) > 0.01
    return difference(found, expected.numpy(), used)


def our_inputs(pair: Pair) -> dict[str, np.ndarray]:
    """`data()` as our model takes it."""
    d = data()
    if pair.family.task_type != "SEQ_2_SEQ_LM":
        return _known(pair.backbone, {"token_ids": d["ids"], "padding_mask": d["mask"]})
    return _both_sides(d["ids"], d["mask"], d["decoder_ids"], d["mask"])


def peft_outputs(pair: Pair, model: Any) -> torch.Tensor:
    """PEFT's logits of `data()`, or hidden states of an encoder, at the user's positions."""
    d = {name: torch.tensor(value) for name, value in data().items()}
    tasks = torch.tensor(TASK_IDS)
    if pair.family.task_type == "FEATURE_EXTRACTION":
        # PEFT's own forward passes no task ids on here, and fails: so its prompts are put before
        # the embeddings as its SEQ_CLS does.
        prompts = model.get_prompt(ROWS, task_ids=tasks)
        embedded = model.word_embeddings(d["ids"])
        mask = torch.cat([torch.ones(ROWS, LENGTH, dtype=torch.long), d["mask"]], 1)
        states = pair.base(inputs_embeds=torch.cat([prompts, embedded], 1), attention_mask=mask)
        return states.last_hidden_state[:, LENGTH:]
    arguments = {"input_ids": d["ids"], "attention_mask": d["mask"], "task_ids": tasks}
    if pair.family.task_type == "SEQ_2_SEQ_LM":
        # PEFT takes the decoder's embeddings, or makes them of labels; its ids it passes over.
        embedding = pair.base.get_decoder().get_input_embeddings()
        arguments["decoder_inputs_embeds"] = embedding(d["decoder_ids"])
        arguments["decoder_attention_mask"] = d["mask"]
    return model(**arguments).logits[:, LENGTH:]


def difference(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """Largest difference where `mask` is 1, relative to the largest value of `b` there."""
    a, b = a[mask == 1], b[mask == 1]
    return float(np.abs(a - b).max() / np.abs(b).max())


def _randomize(model: Any) -> None:
    """Weights at a scale where every part of the model counts, norms and biases included."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[-1] ** -0.5)
            else:
                weight.add_(torch.randn_like(weight), alpha=0.1)


def _config(pair: Pair) -> Any:
    return keras_mpt.MultitaskPromptTuningConfig.from_pretrained(pair.folder / "peft")


def _is_lm(pair: Pair) -> bool:
    return pair.family.task_type != "FEATURE_EXTRACTION"


def _known(backbone: Any, x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`x` with what else the backbone takes (zeros), without what it does not take."""
    return {t.name: x.get(t.name, np.zeros_like(next(iter(x.values())))) for t in backbone.inputs}


def _both_sides(ids: Any, mask: Any, decoder_ids: Any, decoder_mask: Any) -> dict[str, Any]:
    return {
        "encoder_token_ids": ids,
        "encoder_padding_mask": mask,
        "decoder_token_ids": decoder_ids,
        "decoder_padding_mask": decoder_mask,
    }


def _states(output: Any) -> np.ndarray:
    return (output.logits if "logits" in output else output.last_hidden_state).numpy()


def _sequence_output(outputs: Any) -> Any:
    return outputs["sequence_output"] if isinstance(outputs, dict) else outputs


def _update_json(file: Path, changes: dict[str, Any]) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
