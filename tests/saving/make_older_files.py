"""Files as an earlier version wrote them: how they were made, and what is in them.

`python -m tests.saving.make_older_files FOLDER` writes them anew, with the version that is
installed. What
stands in `older_files/` was written before 0.1.0 and is never replaced: it must stay readable.
"""

import contextlib
import sys
from pathlib import Path

import keras
import keras_hub
import numpy as np

import keras_mpt
from tests import tiny
from tests.families.configurations import FAMILIES
from tests.training import runs

FOLDER = Path(__file__).parent / "older_files"
SIZES = {"vocabulary_size": 50, "num_layers": 1, "num_heads": 2, "hidden_dim": 8}


def _backbone(kind):
    """A backbone whose weights are the same on every backend."""
    models = keras_hub.models
    match kind:
        case "bert":
            made = models.BertBackbone(**SIZES, intermediate_dim=8, max_sequence_length=16)
        case "gpt2":
            made = models.GPT2Backbone(**SIZES, intermediate_dim=8, max_sequence_length=16)
        case "t5":
            made = models.T5Backbone(**SIZES, intermediate_dim=8)
        case _:
            made = FAMILIES[kind].build()
    return tiny.with_large_weights(made)


def _config(task_type, **kwargs):
    kwargs = {"num_virtual_tokens": 2, "num_tasks": 2, "task_names": ["tone", "topic"], **kwargs}
    return keras_mpt.MultitaskPromptTuningConfig(task_type=task_type, seed=3, **kwargs)


def _inputs(model):
    return {**tiny.inputs(model.backbone), "task_ids": np.array([0, 1, 1, 0])}


def text_classifier():
    """A head per task, trained, with keras-hub's pooler and a preprocessor."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
    tokenizer = keras_hub.tokenizers.BertTokenizer(words, lowercase=True)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=6)
    config = _config("SEQ_CLS", num_ranks=2)
    model = keras_mpt.prompt_tune(
        _backbone("bert"), config, num_classes=[2, 3], preprocessor=preprocessor
    )
    model.fit(_inputs(model), np.array([1, 2, 0, 0]), epochs=2, verbose=0)
    return model


def shared_classifier():
    """A head that all tasks share, over a mean, with tasks that came and went."""
    model = keras_mpt.prompt_tune(
        _backbone("bert"), _config("SEQ_CLS"), num_classes=3, pooling="mean"
    )
    model.add_task("third", from_="tone")
    model.remove_task("tone")
    model.rename_task("third", "mood")
    return model


def hidden_layer():
    """A classifier with a trained layer below its output, on a layer for tokens and positions."""
    return keras_mpt.prompt_tune(_backbone("RoBERTa"), _config("SEQ_CLS"), num_classes=[2, 3])


def token_classifier():
    """A class per token."""
    return keras_mpt.prompt_tune(_backbone("bert"), _config("TOKEN_CLS"), num_classes=[2, 3])


def question_answerer():
    """A span per row."""
    return keras_mpt.prompt_tune(_backbone("bert"), _config("QUESTION_ANS"))


def features():
    """A backbone with prompts alone, on an encoder-decoder."""
    return keras_mpt.prompt_tune(_backbone("t5"), _config(None, num_transformer_submodules=2))


def causal():
    """A causal language model, trained."""
    model = keras_mpt.prompt_tune(_backbone("gpt2"), _config("CAUSAL_LM"))
    model.compile(sampler="greedy")
    x = _inputs(model)
    model.fit(x, x["token_ids"], verbose=0)
    return model


def folded():
    """One task's ordinary prompt."""
    return keras_mpt.prompt_tune(_backbone("gpt2"), _config("CAUSAL_LM")).fold("topic")


def seq2seq():
    """An encoder-decoder language model, prompted on both sides, frozen by hand."""
    model = keras_mpt.prompt_tune(_backbone("t5"), _config("SEQ_2_SEQ_LM"))
    model.trainable = False
    return model


def own_head():
    """A language model whose head has frozen weights of its own."""
    return keras_mpt.prompt_tune(_backbone("EdRec"), _config("SEQ_2_SEQ_LM"))


MODELS = (
    text_classifier,
    shared_classifier,
    hidden_layer,
    token_classifier,
    question_answerer,
    features,
    causal,
    folded,
    seq2seq,
    own_head,
)


def inputs_of(model):
    """What a model was asked as it was saved."""
    x = _inputs(model)
    if not isinstance(model.config, keras_mpt.MultitaskPromptTuningConfig):
        del x["task_ids"]
    return x


def make(folder):
    """Writes every file."""
    for build in MODELS:
        keras.utils.set_random_seed(0)
        model = build()
        model.save(folder / f"{build.__name__}.keras")
        model.save_adapter(folder / f"{build.__name__}_adapter")
        x = inputs_of(model)
        outputs = keras.tree.flatten(model.predict(x, verbose=0))
        np.savez(folder / f"{build.__name__}.npz", *outputs)
    make_resume_state(folder)


def resumed_model():
    """The model of an interrupted run, its backbone's weights the same on every backend."""
    real = runs.backbone
    runs.backbone = lambda: tiny.with_large_weights(real())
    try:
        return runs.make_model()
    finally:
        runs.backbone = real


def make_resume_state(folder):
    """A run that stopped at its seventh step, on this backend."""
    model = resumed_model()
    with contextlib.suppress(runs.Interrupted):
        runs.fit(model, folder / f"run_{keras.backend.backend()}", stop=7)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
