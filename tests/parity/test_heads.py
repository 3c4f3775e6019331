"""Classifiers' heads to and from PEFT, with PEFT running beside us: same names, same logits."""

import warnings

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.parity.families import ALL_ON

peft = pytest.importorskip("peft", reason="PEFT is the reference here: pip install peft")
transformers = pytest.importorskip("transformers", reason="PEFT's models are transformers'")
torch = pytest.importorskip("torch", reason="PEFT runs on PyTorch")

VOCABULARY, LENGTH, TASKS, ROWS, TOKENS, CLASSES = 60, 4, 3, 4, 7, 3
TASK_IDS = np.array([0, 2, 1, 2])
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_labels": CLASSES, "pad_token_id": 1,
}  # fmt: skip
DISTIL_BERT = {
    "vocab_size": VOCABULARY, "dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2,
    "num_labels": CLASSES, "pad_token_id": 1,
}  # fmt: skip
GPT2 = {
    "vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2,
    "num_labels": CLASSES, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
# transformers' name, its model with all weights that keras-hub wants, keras-hub's class, and the
# config: for BERT with the tanh GELU that keras-hub's BERT computes.
FAMILIES = {
    "bert": ("Bert", "Model", "BertBackbone", {**SIZES, "hidden_act": "gelu_new"}),
    "distil_bert": ("DistilBert", "ForSequenceClassification", "DistilBertBackbone", DISTIL_BERT),
    "albert": (
        "Albert",
        "ForSequenceClassification",
        "AlbertBackbone",
        {**SIZES, "embedding_size": 16},
    ),
    "gpt2": ("GPT2", "LMHeadModel", "GPT2Backbone", GPT2),
    "llama": ("Llama", "ForCausalLM", "LlamaBackbone", {**SIZES, "num_key_value_heads": 1}),
}
HEADS = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
    "FEATURE_EXTRACTION": "Model",
}
# What tests/parity/families.py has no row for: decoders' heads, a class per token, and the two task
# types on which PEFT fails with task ids, where an ordinary prompt works.
CASES = [("gpt2", "SEQ_CLS"), ("bert", "TOKEN_CLS")]
if keras.backend.backend() == ALL_ON:
    CASES += [("llama", "SEQ_CLS"), ("bert", "QUESTION_ANS"), ("bert", "FEATURE_EXTRACTION")]
    CASES += [(family, "TOKEN_CLS") for family in ("distil_bert", "gpt2", "llama")]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Random base models on disk, made as they are asked for."""
    made = {}

    def base(family):
        if family not in made:
            name, head, backbone_class, sizes = FAMILIES[family]
            torch.manual_seed(0)
            model = getattr(transformers, name + head)(
                getattr(transformers, f"{name}Config")(**sizes)
            )
            path = tmp_path_factory.mktemp(family)
            model.save_pretrained(path)
            backbone = getattr(keras_hub.models, backbone_class).from_preset(str(path))
            made[family] = (path, backbone)
        return made[family]

    return base


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def case(request, bases, tmp_path):
    """A PEFT model with random prompts and head, its saved adapter, and our backbone."""
    family, task_type = request.param
    path, backbone = bases(family)
    name = FAMILIES[family][0]
    torch.manual_seed(1)
    base_class = getattr(transformers, name + HEADS[task_type])
    labels = 2 if task_type == "QUESTION_ANS" else CLASSES
    base = base_class.from_pretrained(path, num_labels=labels)
    settings = {"task_type": task_type, "num_virtual_tokens": LENGTH}
    if family == "distil_bert":  # PEFT does not find these by itself.
        settings |= {"token_dim": 16, "num_attention_heads": 2, "num_layers": 2}
    if task_type in ("QUESTION_ANS", "FEATURE_EXTRACTION"):
        config = peft.PromptTuningConfig(**settings)
    else:
        config = peft.MultitaskPromptTuningConfig(num_tasks=TASKS, num_ranks=2, **settings)
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for weight in model.prompt_encoder.parameters():
            weight.normal_()
        for weight in model.parameters():
            if weight.requires_grad:
                weight.normal_()
    model.save_pretrained(tmp_path / "peft")
    return model, backbone, tmp_path, lambda: base_class.from_pretrained(path, num_labels=labels)


def data(task_type):
    """Token ids and a mask; padded on the right where PEFT minds the padding."""
    ids = np.random.default_rng(0).integers(2, VOCABULARY, (ROWS, TOKENS))
    mask = np.ones_like(ids)
    if task_type != "last":
        ids[1, 4:], mask[1, 4:] = 1, 0
    return ids, mask


def peft_outputs(model, ids, mask):
    """PEFT's outputs as ours are laid out, for user positions alone."""
    x = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    if isinstance(model.active_peft_config, peft.MultitaskPromptTuningConfig):
        x["task_ids"] = torch.tensor(TASK_IDS)
    with torch.no_grad():
        out = model(**x)
    if "start_logits" in out:
        return np.stack([out.start_logits, out.end_logits], axis=-1)[:, LENGTH:]
    found = out.logits if "logits" in out else out.last_hidden_state
    return found.numpy() if found.ndim == 2 else found.numpy()[:, LENGTH:]


def our_outputs(model, ids, mask):
    """Ours, from a direct call."""
    x = {"token_ids": ids, "padding_mask": mask, "task_ids": TASK_IDS}
    outputs = model({name: x[name] for name in model.model_inputs.names if name in x})
    outputs = outputs["sequence_output"] if isinstance(outputs, dict) else outputs
    outputs = ops.convert_to_numpy(outputs)
    is_span = isinstance(model, keras_mpt.models.PromptTunedQuestionAnswerer)
    return outputs.transpose(0, 2, 1) if is_span else outputs


def assert_same(ours, theirs, x):
    """Within 1e-5 of their scale, where the user's tokens are."""
    ids, mask = x
    theirs, ours = peft_outputs(theirs, ids, mask), our_outputs(ours, ids, mask)
    assert ours.shape == theirs.shape
    if ours.ndim == 3:
        ours, theirs = ours[mask == 1], theirs[mask == 1]
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_heads_come_from_peft_and_go_back(case):
    model, backbone, path, fresh_base = case
    ours = keras_mpt.load_adapter(backbone, path / "peft")
    x = data(getattr(ours, "pooling", None))
    assert_same(ours, model, x)

    rng = np.random.default_rng(1)
    for variable in ours.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    ours.save_adapter(path / "ours")
    theirs, back = (keras_mpt.read_state_dict(path / name) for name in ("peft", "ours"))
    assert theirs.keys() == back.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # transformers warns of itself whenever PEFT wraps a model, whatever the adapter.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        opened = peft.PeftModel.from_pretrained(fresh_base(), path / "ours").eval()
    assert_same(ours, opened, x)


def test_peft_classifies_padding_and_we_the_last_token(bases, tmp_path):
    """A decoder's classifier in PEFT reads the last position even where that is padding."""
    path, backbone = bases("gpt2")
    base = transformers.GPT2ForSequenceClassification.from_pretrained(path, num_labels=CLASSES)
    config = peft.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=LENGTH, num_tasks=TASKS
    )
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for weight in model.prompt_encoder.parameters():
            weight.normal_()
    model.save_pretrained(tmp_path)
    ours = keras_mpt.load_adapter(backbone, tmp_path)
    assert ours.pooling == "last"
    ids, mask = data("last")
    padded = np.concatenate([ids, np.ones_like(ids)], axis=1)
    padded_mask = np.concatenate([mask, np.zeros_like(mask)], axis=1)
    alone = peft_outputs(model, ids, mask)
    np.testing.assert_allclose(our_outputs(ours, padded, padded_mask), alone, atol=1e-5)
    assert np.abs(peft_outputs(model, padded, padded_mask) - alone).max() > 1e-2


def test_heads_of_several_tasks_open_in_peft_side_by_side(bases, tmp_path):
    """PEFT knows one head: of all tasks' classes together, of which a task has its own."""
    path, backbone = bases("bert")
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_virtual_tokens=LENGTH, num_tasks=TASKS, prompt_position="before", task_type="SEQ_CLS"
    )
    ours = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 1, 3], pooling="base")
    rng = np.random.default_rng(1)
    for variable in ours.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    ours.save_adapter(tmp_path)
    base = transformers.BertForSequenceClassification.from_pretrained(path, num_labels=6)
    opened = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    ids, mask = data(None)
    logits, found = peft_outputs(opened, ids, mask), our_outputs(ours, ids, mask)
    for row, task in enumerate(TASK_IDS):
        start, stop = [(0, 2), (2, 3), (3, 6)][task]
        np.testing.assert_allclose(found[row, : stop - start], logits[row, start:stop], atol=1e-5)
