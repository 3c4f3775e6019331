"""What the tests and `tools/parity.py` measure: PEFT and keras_mpt on the same weights and inputs.

A difference is the largest one, relative to the largest value of what PEFT or transformers
computes.
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
import pytest
from keras import ops

import keras_mpt
from tests.parity.families import PADDING, Family, measured_on

torch = pytest.importorskip("torch", reason="PEFT runs on PyTorch")
pytest.importorskip("transformers", reason="PEFT's models are transformers'")
peft = pytest.importorskip("peft", reason="PEFT is the reference here: pip install peft")

# Two threads spend ten times as long waiting for each other as such small models take one.
torch.set_num_threads(1)

# For tests that take `name`: every family that is measured on this backend.
each_family = pytest.mark.parametrize(
    "name", [f.name for f in measured_on(keras.backend.backend())]
)

TOLERANCE = 1e-5
LENGTH, TASKS, RANKS, ROWS, TOKENS = 5, 3, 2, 4, 7
TASK_IDS = [0, 2, 1, 2]
# Ids that no family gives a meaning of its own.
LOWEST, HIGHEST = 4, 50


@dataclasses.dataclass
class Pair:
    """A family's model in transformers, wrapped by PEFT, and keras-hub's of the same weights.

    Attributes:
        family: the row of the table.
        base: the model of transformers.
        model: PEFT's around `base`, with random prompts.
        here: keras-hub's backbone or task, as `load_adapter` takes it.
        folder: holds `base` and PEFT's adapter, `peft`.
        ours: our model, once it was asked for.
    """

    family: Family
    base: Any
    model: Any
    here: Any
    folder: Path
    ours: Any = None

    @property
    def backbone(self) -> Any:
        return getattr(self.here, "backbone", self.here)


def make_pair(family: Family, folder: Path) -> Pair:
    """Saves a random model and a random adapter of PEFT, and loads keras-hub's backbone."""
    torch.manual_seed(0)
    base = family.make().eval()
    _randomize(base)
    save(family, base, folder / "base")
    sizes = {"num_virtual_tokens": LENGTH, "num_tasks": TASKS, "num_ranks": RANKS}
    # PEFT does not find these by itself in every configuration.
    width = base.get_input_embeddings().weight.shape[1]
    sizes |= {"token_dim": width, "num_layers": 2, "num_attention_heads": 2}
    config = peft.MultitaskPromptTuningConfig(task_type=family.task_type, **sizes)
    model = peft.get_peft_model(copy.deepcopy(base), config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.normal_()
    model.save_pretrained(folder / "peft")
    here = load(folder / "base")
    pair = Pair(family, base, model, here, folder)
    assert type(pair.backbone).__name__ == family.backbone
    return pair


def save(family: Family, base: Any, folder: Path) -> None:
    """Writes a model of transformers as published checkpoints of its family are."""
    base.save_pretrained(folder)
    if family.adjust is not None:
        family.adjust(base, folder)
    _update_json(folder / "config.json", family.published)


def load(folder: Path) -> Any:
    """The backbone as users get it; what it warns of is tested elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return keras_mpt.backbone_from_pretrained(folder)


def data(length: int = TOKENS, seed: int = 0) -> dict[str, np.ndarray]:
    """Token ids, ids for a decoder and labels; every second row is padded on the right."""
    rng = np.random.default_rng(seed)
    mask = np.ones((ROWS, length), "int64")
    mask[1::2, length - 3 :] = 0
    ids, decoder_ids, labels = (rng.integers(LOWEST, HIGHEST, mask.shape) for _ in range(3))
    ids, decoder_ids = (np.where(mask == 1, x, PADDING) for x in (ids, decoder_ids))
    return {"ids": ids, "decoder_ids": decoder_ids, "mask": mask, "labels": labels}


def base_difference(pair: Pair, backbone: Any = None) -> float:
    """How far a backbone, by default the pair's, is from transformers' without any prompt.

    Of logits, or of the hidden states of an encoder. As many tokens as the other measurements have
    with their prompts, and as embeddings, which is how PEFT gives them.
    """
    d = data(LENGTH + TOKENS, seed=1)
    embed, decoder_embed = (m.get_input_embeddings() for m in (pair.base, pair.base.get_decoder()))
    with torch.no_grad():
        arguments = {
            "inputs_embeds": embed(torch.tensor(d["ids"])),
            "attention_mask": torch.tensor(d["mask"]),
        }
        x = {"token_ids": d["ids"], "padding_mask": d["mask"]}
        if pair.family.task_type == "SEQ_2_SEQ_LM":
            arguments["decoder_inputs_embeds"] = decoder_embed(torch.tensor(d["decoder_ids"]))
            arguments["decoder_attention_mask"] = torch.tensor(d["mask"])
            x = _both_sides(d)
        if pair.family.task_type == "SEQ_CLS":
            theirs = pair.base.base_model(**arguments).last_hidden_state
        else:
            theirs = pair.base(**arguments).logits
    places = np.broadcast_to(np.arange(LENGTH + TOKENS), d["ids"].shape)
    defaults = {"segment_ids": np.zeros_like(d["ids"]), "position_ids": places}
    backbone = backbone or pair.backbone
    x = {t.name: {**defaults, **x}[t.name] for t in backbone.inputs}
    outputs = backbone(x)
    if pair.family.task_type == "SEQ_CLS":
        ours = outputs["sequence_output"] if isinstance(outputs, dict) else outputs
    else:
        ours = (pair.ours or load_peft_adapter(pair)).head(keras.tree.flatten(outputs))
    return difference(ops.convert_to_numpy(ours), theirs.numpy(), d["mask"])


def own_difference(pair: Pair) -> float | None:
    """As `base_difference`, of what keras-hub alone makes of the folder; `None` has no such way."""
    if pair.family.name.startswith("t5_") or pair.family.name == "t5":
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        backbone = keras_hub.models.Backbone.from_preset(str(pair.folder / "base"))
    return base_difference(pair, backbone)


def import_error(pair: Pair) -> float:
    """How far our model with PEFT's adapter is from PEFT's."""
    return logits_difference(pair, load_peft_adapter(pair), pair.model)


def export_error(pair: Pair) -> float:
    """How far PEFT's model with an adapter that we wrote is from ours; PEFT must not warn."""
    ours = load_peft_adapter(pair)
    rng = np.random.default_rng(2)
    for variable in ours.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    ours.save_adapter(pair.folder / "ours", overwrite=True)
    return logits_difference(pair, ours, open_in_peft(pair, pair.folder / "ours"))


def load_peft_adapter(pair: Pair) -> Any:
    """Our model with the adapter that PEFT wrote. It is made once and loaded each time."""
    if pair.ours is None:
        pair.ours = keras_mpt.load_adapter(pair.here, pair.folder / "peft")
        assert pair.ours.config.prompt_position == "before"
    else:
        pair.ours.load_adapter(pair.folder / "peft")
    return pair.ours


def open_in_peft(pair: Pair, directory: Path) -> Any:
    """PEFT's model from an adapter's directory. Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # transformers warns of itself whenever PEFT wraps a model, whatever the adapter.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        return peft.PeftModel.from_pretrained(copy.deepcopy(pair.base), directory).eval()


def logits_difference(pair: Pair, ours: Any, theirs: Any) -> float:
    """Between our model and PEFT's on mixed tasks with padding, at the user's positions."""
    d = data()
    expected = _peft_array(pair, theirs, d)
    found, other_tasks = (
        ours.predict({**our_inputs(pair, d), "task_ids": np.array(task_ids)}, verbose=0)
        for task_ids in (TASK_IDS, [1, 1, 2, 0])
    )
    mask = np.ones(ROWS) if found.ndim == 2 else d["mask"]
    # A comparison says something only where the tasks' prompts do.
    assert difference(other_tasks, found, mask) > 0.01
    return difference(found, expected, mask)


def our_inputs(pair: Pair, d: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`data()` as our model takes it. What else a backbone takes has a default."""
    if pair.family.task_type == "SEQ_2_SEQ_LM":
        return _both_sides(d)
    x = {"token_ids": d["ids"], "padding_mask": d["mask"]}
    return {t.name: x[t.name] for t in pair.backbone.inputs if t.name in x}


def peft_logits(pair: Pair, model: Any, d: dict[str, np.ndarray], task_ids: Any = TASK_IDS) -> Any:
    """PEFT's logits of `data()`, of the user's positions where it gives one per position."""
    arguments = {"input_ids": torch.tensor(d["ids"]), "attention_mask": torch.tensor(d["mask"])}
    if pair.family.task_type == "SEQ_2_SEQ_LM":
        # PEFT takes the decoder's embeddings, or makes them of labels; its ids it passes over.
        embedding = pair.base.get_decoder().get_input_embeddings()
        arguments["decoder_inputs_embeds"] = embedding(torch.tensor(d["decoder_ids"])).detach()
        arguments["decoder_attention_mask"] = torch.tensor(d["mask"])
    logits = model(**arguments, task_ids=torch.tensor(task_ids)).logits
    return logits if logits.ndim == 2 else logits[:, LENGTH:]


def _peft_array(pair: Pair, model: Any, d: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return peft_logits(pair, model, d).numpy()


def difference(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """Largest difference where `mask` is 1, relative to the largest value of `b` there."""
    a, b = a[mask == 1], b[mask == 1]
    return float(np.abs(a - b).max() / np.abs(b).max())


def _randomize(model: Any) -> None:
    """Weights at a scale where every part of the model counts, norms and biases included."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[-1] ** -0.5)
            else:
                weight.add_(torch.randn_like(weight), alpha=0.1)


def _both_sides(d: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "encoder_token_ids": d["ids"],
        "encoder_padding_mask": d["mask"],
        "decoder_token_ids": d["decoder_ids"],
        "decoder_padding_mask": d["mask"],
    }


def _update_json(file: Path, changes: dict[str, Any]) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
