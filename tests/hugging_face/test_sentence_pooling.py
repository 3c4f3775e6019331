"""A checkpoint of sentence embeddings that nobody said how to pool is warned of."""

import json
import warnings

import pytest

import keras_mpt
from keras_mpt.hugging_face.sentence_pooling import note_folder
from tests import tiny
from tests.marks import only_torch

# No number of any backend is in it.
pytestmark = only_torch
SEQ_CLS = {"task_type": "SEQ_CLS", "num_virtual_tokens": 3}


def write(folder, **flags):
    """What sentence-transformers writes beside weights."""
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "modules.json").write_text("[]")
    if flags:
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(flags))


def told(make):
    """The warnings of pooling that a call gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    found = [w for w in caught if "pooling=" in str(w.message) and "PEFT" not in str(w.message)]
    assert all(w.filename == __file__ for w in found)
    return [str(w.message) for w in found]


def classifier(backbone, **kwargs):
    config = keras_mpt.PromptTuningConfig(**SEQ_CLS)
    return keras_mpt.prompt_tune(backbone, config, num_classes=2, **kwargs)


def test_a_folder_of_transformers_is_noted(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2}
    of = transformers.BertConfig(**sizes, num_hidden_layers=1, intermediate_size=32)
    transformers.BertModel(of).save_pretrained(tmp_path)
    plain = keras_mpt.backbone_from_pretrained(tmp_path)
    assert told(lambda: classifier(plain)) == []
    write(tmp_path, word_embedding_dimension=16, pooling_mode_mean_tokens=True)
    backbone = keras_mpt.backbone_from_pretrained(tmp_path)
    for pooling in ("base", "mean"):
        assert told(lambda p=pooling: classifier(backbone, pooling=p)) == []
    assert told(lambda: classifier(backbone)) == [
        f"The checkpoint in {str(tmp_path)!r} was trained for sentence embeddings that are the "
        'mean of the tokens, and this model reads the start token: give `pooling="mean"`, or '
        '`pooling="base"` to keep it so without a warning.'
    ]
    assert told(lambda: classifier(backbone)) == []  # Once is enough.


@pytest.mark.parametrize(
    ("kind", "flags", "wanted"),
    [
        ("bert", {}, "mean"),
        ("bert", {"pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
        ("bert", {"pooling_mode": "mean"}, "mean"),
        ("bert", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, None),
        ("bert", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None),
        ("bert", {"pooling_mode_max_tokens": True}, None),
        ("llama", {"pooling_mode_lasttoken": True}, "last"),
        ("llama", {"pooling_mode_mean_tokens": True}, None),
    ],
)
def test_each_way_to_pool(kind, flags, wanted, tmp_path):
    write(tmp_path / "model", **flags)
    backbone = tiny.backbone(kind)
    note_folder(backbone, tmp_path / "model")
    found = told(lambda: classifier(backbone))
    assert len(found) == (wanted is not None)
    assert all(f'give `pooling="{wanted}"`' in text for text in found)


@pytest.mark.parametrize("field", ["base_model_name_or_path", "tokenizer_name_or_path"])
def test_a_config_may_name_the_folder(field, tmp_path):
    """keras-hub's own `from_preset` leaves no trace of where a backbone is from."""
    write(tmp_path / "model", pooling_mode_mean_tokens=True)
    config = keras_mpt.PromptTuningConfig(**SEQ_CLS, **{field: str(tmp_path / "model")})
    for make in (keras_mpt.prompt_tune, keras_mpt.models.PromptTunedTextClassifier):
        assert len(told(lambda m=make: m(tiny.backbone(), config, num_classes=2))) == 1


def test_an_adapter_has_its_own_pooling(tmp_path):
    """PEFT's have that of PEFT, whatever the checkpoint's."""
    write(tmp_path / "model", pooling_mode_mean_tokens=True)
    backbone = tiny.backbone()
    classifier(backbone, pooling="base").save_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "keras_mpt_config.json").unlink()
    note_folder(backbone, tmp_path / "model")
    assert told(lambda: keras_mpt.load_adapter(backbone, tmp_path / "adapter")) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"pooling_mode_mean_tokens": 1}'])
def test_what_nobody_can_read_is_let_be(content, tmp_path):
    write(tmp_path / "model", x=1)
    (tmp_path / "model" / "1_Pooling" / "config.json").write_bytes(content)
    backbone = tiny.backbone()
    note_folder(backbone, tmp_path / "model")
    assert told(lambda: classifier(backbone)) == []
