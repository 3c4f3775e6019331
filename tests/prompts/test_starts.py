"""Where prompts start: random, from tokens, from a text."""

import sys

import keras
import numpy as np
import pytest

import keras_mpt
from keras_mpt import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.prompts.starts import start_values
from tests import tiny
from tests.families.configurations import FAMILIES
from tests.prompts.helpers import NEEDS_PEFT

VOCABULARY, WIDTH = 200, 16
TABLE = np.random.default_rng(0).normal(0.05, 0.3, (VOCABULARY, WIDTH)).astype("float32")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "it", "good", "or", "bad"]
TEXT = "is it good or bad"  # Five tokens.
CLASSES = [PromptTuningConfig, MultitaskPromptTuningConfig]


def start(config, tokenizer=None, table=TABLE):
    return start_values(config, table.__getitem__, len(table), table.shape[1], tokenizer)


def text_config(cls, text=TEXT, **kwargs):
    kwargs = {"num_virtual_tokens": 5, **kwargs}
    return cls(prompt_tuning_init="TEXT", prompt_tuning_init_text=text, **kwargs)


def rows_of(prompt, table):
    """Which row of the table each row of the prompt is."""
    found = (prompt[:, None] == table[None]).all(-1)
    assert (found.sum(1) == 1).all()
    return found.argmax(1)


@pytest.mark.parametrize("cls", CLASSES)
def test_random_has_the_scale_of_the_token_embedding(cls):
    prompt = start(cls(num_virtual_tokens=500, seed=5))["prompt_embeddings"]
    assert prompt.shape == (500, WIDTH)
    assert prompt.dtype == "float32"
    # Of 8,000 draws the deviation has a standard error of 0.8 %, and the mean one of 0.0034.
    assert prompt.std() == pytest.approx(TABLE.std(), rel=0.03)
    assert abs(prompt.mean()) < 0.014


def test_random_looks_at_a_sample_of_a_large_vocabulary():
    asked = []

    def embed_tokens(ids):
        asked.append(ids[0])
        return np.where(ids % 2, 0.5, -0.5)[..., None] * np.ones((1, 1, 4))

    config = PromptTuningConfig(num_virtual_tokens=2000, seed=5)
    prompt = start_values(config, embed_tokens, 250_000, 4)["prompt_embeddings"]
    (ids,) = asked
    assert len(ids) == len(set(ids.tolist())) < 10_000
    assert ids.min() < 5_000 and ids.max() > 245_000
    assert prompt.std() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("cls", CLASSES)
def test_sample_vocab_takes_rows_of_the_token_embedding(cls):
    config = cls(num_virtual_tokens=100, prompt_tuning_init="SAMPLE_VOCAB", seed=5)
    rows = rows_of(start(config)["prompt_embeddings"], TABLE)
    # 100 draws out of 200 give 79 different rows on average.
    assert 60 < len(set(rows.tolist())) < 95
    assert rows.min() < 20 and rows.max() >= 180


@pytest.mark.parametrize("task_init", ["ones", "normal"])
def test_factors(task_init):
    config = MultitaskPromptTuningConfig(
        num_virtual_tokens=50, num_tasks=6, num_ranks=4, task_init=task_init
    )
    values = start(config)
    cols, rows = values["prefix_task_cols"], values["prefix_task_rows"]
    assert (cols.shape, rows.shape) == ((6, 50, 4), (6, 4, WIDTH))
    if task_init == "ones":
        np.testing.assert_array_equal(cols @ rows, np.ones((6, 50, WIDTH)))
        assert np.abs(cols).min() > 0  # Else a rank could never leave its start.
    else:
        assert cols.std() == pytest.approx(0.02, rel=0.1)
        assert rows.std() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("init", ["RANDOM", "SAMPLE_VOCAB"])
@pytest.mark.parametrize("cls", CLASSES)
def test_seeds(cls, init):
    def values(seed, global_seed):
        keras.utils.set_random_seed(global_seed)
        found = start(cls(num_virtual_tokens=8, prompt_tuning_init=init, seed=seed))
        return np.concatenate([v.ravel() for v in found.values()])

    by_seed = values(5, 1)
    np.testing.assert_array_equal(by_seed, values(5, 2))
    assert (by_seed != values(6, 1)).any()
    by_global_seed = values(None, 1)
    np.testing.assert_array_equal(by_global_seed, values(None, 1))
    assert (by_global_seed != values(None, 2)).any()


@pytest.fixture
def tokenizer_folder(tmp_path):
    """A Hugging Face tokenizer of one token per word, put between [CLS] and [SEP]."""
    tokenizers = pytest.importorskip("tokenizers", reason="a Hugging Face tokenizer is made here")
    transformers = pytest.importorskip("transformers", reason="it is read with transformers")
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    fast.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


@pytest.mark.parametrize("name", ["PromptTuningConfig", "MultitaskPromptTuningConfig"])
@pytest.mark.parametrize(("length", "submodules"), [(3, 1), (7, 1), (16, 1), (4, 2), (10, 2)])
def test_text_is_trimmed_or_repeated_as_in_peft(name, length, submodules, tokenizer_folder):
    """Seven tokens with [CLS] and [SEP], in prompts that are shorter, as long, and longer."""
    peft = pytest.importorskip("peft", reason=NEEDS_PEFT)
    import torch

    kwargs = {
        "num_virtual_tokens": length,
        "num_transformer_submodules": submodules,
        "token_dim": WIDTH,
        "tokenizer_name_or_path": tokenizer_folder,
    }
    theirs = text_config(getattr(peft, name), "good or funny , is it", **kwargs)
    module = {
        "PromptTuningConfig": peft.PromptEmbedding,
        "MultitaskPromptTuningConfig": peft.tuners.MultitaskPromptEmbedding,
    }[name](theirs, torch.nn.Embedding.from_pretrained(torch.tensor(TABLE)))
    config = text_config(getattr(keras_mpt, name), "good or funny , is it", **kwargs)
    found = start(config)["prompt_embeddings"]
    assert found.shape == (length * submodules, WIDTH)
    np.testing.assert_array_equal(found, module.embedding.weight.detach().numpy())


@pytest.mark.parametrize(
    ("length", "words"),
    [(3, "is it good"), (5, TEXT), (8, TEXT + " is it good"), (11, f"{TEXT} {TEXT} is")],
)
def test_text_with_a_keras_hub_tokenizer(length, words):
    config = text_config(PromptTuningConfig, num_virtual_tokens=length)
    prompt = start(config, keras_hub_tokenizer())["prompt_embeddings"]
    np.testing.assert_array_equal(prompt, TABLE[[WORDS.index(word) for word in words.split()]])


def keras_hub_tokenizer():
    import keras_hub

    return keras_hub.tokenizers.BertTokenizer(vocabulary=WORDS)


def test_the_config_s_tokenizer_goes_before_the_model_s(tokenizer_folder):
    config = text_config(PromptTuningConfig, tokenizer_name_or_path=tokenizer_folder)
    prompt = start(config, keras_hub_tokenizer())["prompt_embeddings"]
    np.testing.assert_array_equal(prompt[0], TABLE[WORDS.index("[CLS]")])


def test_a_config_cannot_switch_on_remote_code(tokenizer_folder, monkeypatch):
    import transformers

    asked = {}
    load = transformers.AutoTokenizer.from_pretrained

    def from_pretrained(name, **kwargs):
        asked.update(kwargs)
        return load(name, **kwargs)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
    kwargs = {"use_fast": True, "trust_remote_code": True}
    config = text_config(
        PromptTuningConfig, tokenizer_name_or_path=tokenizer_folder, tokenizer_kwargs=kwargs
    )
    start(config)
    assert asked == {"use_fast": True}
    assert config.tokenizer_kwargs == {"use_fast": True, "trust_remote_code": True}


def test_text_that_tokenizes_to_nothing():
    message = "`prompt_tuning_init_text` should hold at least one token.*' ', which tokenizes to n"
    with pytest.raises(ValueError, match=message):
        start(text_config(PromptTuningConfig, text=" "), keras_hub_tokenizer())


def test_text_without_a_tokenizer():
    message = "`tokenizer_name_or_path` should be given when prompt_tuning_init='TEXT', or the mod"
    with pytest.raises(ValueError, match=message):
        start(text_config(PromptTuningConfig))


def test_text_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ImportError, match="`tokenizer_name_or_path` names a Hugging Face tokenizer"
    ):
        start(text_config(PromptTuningConfig, tokenizer_name_or_path="some/tokenizer"))


def test_another_model_s_tokenizer():
    message = r"tokenizer .* should be the backbone's, with ids in \[0, 8\).*\[5, 6, 7, 8, 9\]"
    with pytest.raises(ValueError, match=message):
        start(text_config(PromptTuningConfig), keras_hub_tokenizer(), table=TABLE[:8])


@pytest.mark.parametrize("init", ["RANDOM", "SAMPLE_VOCAB", "TEXT"])
def test_a_model_starts_from_its_own_token_embedding(init):
    backbone = tiny.backbone("bert")
    config = MultitaskPromptTuningConfig(
        num_virtual_tokens=20,
        num_tasks=2,
        prompt_tuning_init=init,
        prompt_tuning_init_text=TEXT,
        seed=5,
    )
    model = keras_mpt.prompt_tune(backbone, config, tokenizer=keras_hub_tokenizer())
    table = keras.ops.convert_to_numpy(backbone.token_embedding.embeddings)
    found = model.prompt.get_peft_state_dict()
    wanted = start(config, keras_hub_tokenizer(), table)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
    if init != "RANDOM":
        rows_of(found["prompt_embeddings"], table)


@pytest.mark.parametrize("init", ["TEXT", "SAMPLE_VOCAB", "RANDOM"])
def test_an_encoder_and_a_decoder_start_from_their_own_tables(init):
    tables = np.stack([TABLE, 10 + 5 * TABLE])

    def embed_tokens(ids):
        return np.stack([table[row] for table, row in zip(tables, ids, strict=True)])

    class Tokenizer:
        def __call__(self, text):
            return np.array([7, 3, 11])

    config = PromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=300, prompt_tuning_init=init,
        prompt_tuning_init_text=TEXT if init == "TEXT" else None, seed=5,
    )  # fmt: skip
    values = start_values(config, embed_tokens, VOCABULARY, WIDTH, Tokenizer())
    sides = values["prompt_embeddings"].reshape(2, 300, WIDTH)
    if init == "RANDOM":
        assert sides[0].std() == pytest.approx(tables[0].std(), rel=0.03)
        assert sides[1].std() == pytest.approx(tables[1].std(), rel=0.03)
        return
    rows = [rows_of(side, table) for side, table in zip(sides, tables, strict=True)]
    if init == "TEXT":
        np.testing.assert_array_equal(np.concatenate(rows), np.tile([7, 3, 11], 200))
    assert len(rows[1]) == 300


def test_of_a_backbone_with_two_tables_each_prompt_has_its_own():
    backbone = FAMILIES["T5Gemma"].build()
    config = PromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3, prompt_tuning_init="SAMPLE_VOCAB", seed=5
    )
    model = keras_mpt.prompt_tune(backbone, config)
    prompt = model.prompt.get_peft_state_dict()["prompt_embeddings"].reshape(2, 3, -1)
    tables = [
        keras.ops.convert_to_numpy(embedding.embeddings)
        for embedding in (backbone.token_embedding, backbone.decoder_token_embedding)
    ]
    assert not np.array_equal(*tables)
    rows = [rows_of(part, table) for part, table in zip(prompt, tables, strict=True)]
    read = [entries[0] for entries in keras_mpt.analysis.nearest_tokens(model, k=1)]
    assert [token for token, _ in read] == np.concatenate(rows).tolist()
    np.testing.assert_allclose([similarity for _, similarity in read], 1, rtol=1e-6)
