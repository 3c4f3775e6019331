"""The card beside an adapter: what it says is so, and nothing is lost or hindered by it."""

import re

import numpy as np
import pytest

import keras_mpt
from keras_mpt.adapters.reading import read_adapter
from tests import tiny
from tests.marks import only_torch

CARD = "README.md"
Y = np.array([0, 1, 2, 1])


def classifier(**kwargs):
    """A text classifier of two tasks on a small backbone."""
    given = {"num_virtual_tokens": 3, "num_tasks": 2, "task_names": ["tone", "topic"], **kwargs}
    config = keras_mpt.MultitaskPromptTuningConfig(task_type="SEQ_CLS", num_ranks=2, **given)
    return keras_mpt.prompt_tune(tiny.backbone("plain"), config, num_classes=[2, 3])


def data(model):
    return {**tiny.inputs(model.backbone), "task_ids": [0, 1, 1, 0]}


def card(model, folder):
    model.save_adapter(folder, overwrite=True)
    return (folder / CARD).read_text()


def table(text, first):
    """The rows of the table whose head begins with a word, by their first cells."""
    lines = text.split(f"\n| {first} |")[1].split("\n\n")[0].splitlines()[2:]
    # In a table a bar within a name stands behind a backslash.
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows}


def test_metrics_are_those_of_the_last_evaluate(tmp_path):
    model = classifier(label_names={"tone": ["bad", "good"]})
    x, y = data(model), np.array([0, 1, 2, 1])
    assert "accuracy" not in card(model, tmp_path)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    text = card(model, tmp_path)
    head = re.search(r"^\| task \|(.*)\|$", text, re.MULTILINE)[1].split(" | ")
    metrics = [name.strip() for name in head[1:]]
    assert sorted(metrics) == ["accuracy", "loss"]
    rows = table(text, "task")
    for row, prefix, classes in (
        ("`tone`", "tone_", "`bad`, `good`"),
        ("`topic`", "topic_", "3"),
        ("all rows", "", ""),
    ):
        assert rows[row] == [classes, *(f"{logs[prefix + name]:.4g}" for name in metrics)]
    assert "of the last `evaluate` of 4 rows before" in text
    # What `fit` validates on its way is not what is saved; another compile changes no weight.
    model.compile()
    assert card(model, tmp_path) == text
    model.fit(x, y, validation_data=(x, y), verbose=0)
    assert "accuracy" not in card(model, tmp_path)


@only_torch
def test_of_other_weights_nothing_is_said(tmp_path):
    model = classifier()
    x = data(model)
    for change in (
        lambda: model.prompt.prompt_embeddings.assign_add(model.prompt.prompt_embeddings),
        lambda: model.logits.weights[0].assign_add(model.logits.weights[0]),
        lambda: model.quantize("int8"),
    ):
        model.evaluate(x, Y, verbose=0)
        assert "accuracy" in card(model, tmp_path)
        change()
        assert "accuracy" not in card(model, tmp_path)
    assert "accuracy" not in card(model.fold("tone"), tmp_path)
    model.evaluate(((data(model), Y) for _ in range(2)), steps=1, verbose=0)
    assert "of the last `evaluate` before" in card(model, tmp_path)


def with_config(task_type=None, kind="bert", base=None, tasks=2, **kwargs):
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=task_type, num_virtual_tokens=3, num_tasks=tasks, **kwargs
    )
    return keras_mpt.prompt_tune(tiny.backbone(kind) if base is None else base, config)


def of_words():
    words = {"label_words": {"task_0": [" bad", " good"]}, "task_names": ["task_0", "task_1"]}
    return with_config("CAUSAL_LM", "gpt2", **words)


def masked():
    import keras_hub

    return with_config(base=keras_hub.models.BertMaskedLM(tiny.backbone()))


def tokens():
    config = keras_mpt.PromptTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=3)
    return keras_mpt.prompt_tune(tiny.backbone(), config, num_classes=4)


WITH_TASKS = "task_ids=torch.tensor([0])"
FAILS = "no `task_ids`, and fails"
KINDS = {
    "classifier": (classifier, "text-classification", "SequenceClassification", WITH_TASKS),
    "tokens": (tokens, "token-classification", "TokenClassification", "num_labels=4"),
    "spans": (lambda: with_config("QUESTION_ANS"), "question-answering", None, FAILS),
    "words": (of_words, "text-generation", "CausalLM", "`' bad'`, `' good'`"),
    "encoder-decoder": (
        lambda: with_config("SEQ_2_SEQ_LM", "bart"),
        "text2text-generation",
        "Seq2SeqLM",
        "leaves the decoder's prompts out",
    ),
    "masked": (masked, "fill-mask", None, FAILS),
    "masked, of one": (lambda: masked().fold(0), "fill-mask", "MaskedLM", "a `MaskedLM` on it"),
    "backbone": (lambda: with_config("FEATURE_EXTRACTION"), "feature-extraction", None, FAILS),
    "no task type": (with_config, None, None, "has no `task_type`"),
    "folded": (lambda: classifier().fold("topic"), "text-classification", "num_labels=3", "| 3 |"),
}


@only_torch
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_says_how_it_is_opened(kind, tmp_path):
    make, pipeline, in_peft, words = KINDS[kind]
    model = make()
    text = card(model, tmp_path)
    facts = table(text, "")
    assert facts["model"] == [f"`keras_mpt.models.{type(model).__name__}`"]
    assert facts["base"][0].startswith(f"`{type(model.backbone).__name__}`, ")
    assert facts["prompt"][0].startswith("`num_virtual_tokens` 3, of width 16")
    config = model.config
    if isinstance(config, keras_mpt.MultitaskPromptTuningConfig):
        assert facts["tasks"] == [f"2, `num_ranks` {config.num_ranks}"]
    assert facts["numbers"][0].startswith(f"{model.parameter_count():,}: P ")
    assert (f"pipeline_tag: {pipeline}\n" in text) == (pipeline is not None)
    assert words in text
    assert "from_pretrained(" not in text if in_peft is None else in_peft in text
    for name in re.findall(r"transformers\.(\w+)", text):
        assert hasattr(pytest.importorskip("transformers"), name)
    base = getattr(model, "task", None) or model.backbone
    if kind.startswith("masked"):
        return
    scope = {"base": base, "preprocessor": None}
    code = re.search(r"```python\n(import keras_mpt\n.*?)```", text, re.DOTALL)[1]
    exec(code.replace("path/to/this/folder", str(tmp_path)), scope)
    assert type(scope["model"]) is type(model)


@only_torch
def test_a_page_of_somebody_s_stays(tmp_path):
    model, page = classifier(), tmp_path / CARD
    page.write_text("Mine.\n")
    assert card(model, tmp_path) == "Mine.\n"
    assert read_adapter(tmp_path).config.num_tasks == 2
    page.unlink()
    first = card(model, tmp_path)
    model.rename_task("tone", "mood")
    assert "`tone`" not in card(model, tmp_path)
    # One that git wrote with other ends of lines is still ours.
    page.write_bytes(first.replace("\n", "\r\n").encode())
    assert "`mood`" in card(model, tmp_path)
    edited = first.replace("frozen backbone", "frozen backbone of the north")
    page.write_text(edited)
    assert card(model, tmp_path) == edited
    page.unlink()
    page.symlink_to(tmp_path / "gone")
    model.save_adapter(tmp_path, overwrite=True)
    assert page.is_symlink()
    page.unlink()
    page.mkdir()
    model.save_adapter(tmp_path, overwrite=True)
    assert page.is_dir() and read_adapter(tmp_path).config.task_names == ["mood", "topic"]


@only_torch
def test_nothing_reads_a_card(tmp_path):
    model = classifier()
    before = card(model, tmp_path)
    for content in (b"", b"\xff\x00", before.encode()[:99]):
        (tmp_path / CARD).write_bytes(content)
        keras_mpt.load_adapter(model.backbone, tmp_path)


@only_torch
def test_hubs_read_its_fields_and_names_are_no_markup(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    name = "# a|b `c`\n---\n<b>\ud800"
    model = classifier(task_names=[name, "topic"], base_model_name_or_path="owner/some-bert")
    text = card(model, tmp_path)
    found = hub.ModelCard.load(tmp_path / CARD).data
    assert found.to_dict()["library_name"] == "keras_mpt" and found.base_model == "owner/some-bert"
    assert table(text, "")["base"][0].endswith(" numbers, `owner/some-bert`")
    assert found.tags == ["keras", "peft", "multitask-prompt-tuning"]
    assert list(table(text, "task")) == [
        r"`` '# a\|b `c`\n---\n<b>\ud800' ``",
        "`topic`",
    ]
    for path in (str(tmp_path), "./here", "a/b/c"):
        model = classifier(base_model_name_or_path=path)
        text = card(model, tmp_path)
        assert "base_model: " not in text and path not in text


@only_torch
def test_of_many_tasks_and_classes_some_are_listed(tmp_path):
    names = [f"t{k}" for k in range(1000)]
    labels = {"t0": [f"class {k}" for k in range(90)]}
    model = with_config("FEATURE_EXTRACTION", tasks=1000, task_names=names)
    assert len(table(card(model, tmp_path), "task")) == 50
    assert "And 950 more tasks." in card(model, tmp_path)
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_virtual_tokens=3, num_tasks=1, task_names=["t0"], label_names=labels
    )
    model = keras_mpt.models.PromptTunedTextClassifier(tiny.backbone(), config, [90])
    assert table(card(model, tmp_path), "task")["`t0`"][0].endswith("`class 19`, … (90 in all)")


@only_torch
def test_peft_opens_the_folder_and_adds_to_the_card(tmp_path):
    """It keeps our words, and from then on the card is edited."""
    peft, transformers = map(pytest.importorskip, ("peft", "transformers"))
    config = keras_mpt.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = keras_mpt.prompt_tune(tiny.backbone("gpt2"), config)
    text = card(model, tmp_path)
    base = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=tiny.VOCABULARY, n_embd=tiny.WIDTH, n_layer=2, n_head=2, n_positions=32
        )
    )
    opened = peft.PeftModel.from_pretrained(base, tmp_path)
    opened.save_pretrained(tmp_path)
    after = (tmp_path / CARD).read_text()
    assert after != text and text.partition("# Prompt tuning")[2] in after
    assert card(model, tmp_path) == after
