"""What nobody's file can do to whoever loads it."""

import builtins
import io

import keras
import pytest

import keras_mpt
from tests import tiny
from tests.adapters.test_foreign_values import CONFIG, saved, write
from tests.marks import only_torch

__all__ = ["saved"]  # A fixture.

pytestmark = only_torch


@pytest.mark.parametrize(
    "start",
    [
        {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "a"},
        {"prompt_tuning_init": "EXACT_SOURCE_TASK"},
    ],
)
def test_an_adapter_has_no_other_file_opened(saved, start, tmp_path, monkeypatch):
    """Nor a tokenizer fetched, nor its code run: the start is in the weights."""
    elsewhere = tmp_path / "elsewhere"
    start |= dict.fromkeys(
        ("tokenizer_name_or_path", "prompt_tuning_init_state_dict_path", "base_model_name_or_path"),
        str(elsewhere / "adapter_model.bin"),
    )
    if start["prompt_tuning_init"] == "TEXT":
        start["tokenizer_kwargs"] = {"trust_remote_code": True}
    write(tmp_path, saved, CONFIG, **start)
    opened = []

    def noting(path, *args, _open=io.open, **kwargs):
        opened.append(str(path))
        return _open(path, *args, **kwargs)

    for owner in (builtins, io):
        monkeypatch.setattr(owner, "open", noting)
    keras_mpt.load_adapter(saved[0].backbone, tmp_path)
    assert opened and not [path for path in opened if str(elsewhere) in path]


def test_a_model_file_runs_no_function_that_it_brings(tmp_path):
    ids, mask = (keras.Input((None,), dtype="int32", name=n) for n in ("token_ids", "padding_mask"))
    tokens = keras.layers.Embedding(tiny.VOCABULARY, 8)(ids)
    tokens = keras.layers.Lambda(lambda x: x * 2)(tokens)
    tokens = tokens + keras.ops.cast(mask, "float32")[..., None]
    backbone = keras.Model({"token_ids": ids, "padding_mask": mask}, tokens)
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=2)
    keras_mpt.models.PromptTunedBackbone(backbone, config).save(tmp_path / "m.keras")
    with pytest.raises((ValueError, TypeError), match="[Ll]ambda"):
        keras.saving.load_model(tmp_path / "m.keras")
