"""Small language models of three tasks, and what they are asked."""

import keras_hub
import numpy as np

import keras_mpt
from tests import tiny

IDS = np.array([[5, 6, 7, 0, 0, 0, 0, 0], [4, 3, 0, 0, 0, 0, 0, 0]])
LETTERS = [*"abcdefgh", "Ġ", "ab", "<|endoftext|>", "<s>", "</s>", "<pad>", "<mask>"]
VOCABULARY = {letter: i for i, letter in enumerate(LETTERS)}
KINDS = {"gpt2": "CAUSAL_LM", "bart": "SEQ_2_SEQ_LM", "t5": "SEQ_2_SEQ_LM"}


def causal_preprocessor(sequence_length=8):
    """A byte-pair tokenizer of single letters and "ab", with a start token, which is the end's."""
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=VOCABULARY, merges=["a b"])
    return keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=sequence_length)


def seq2seq_preprocessor(encoder_length=8, decoder_length=8):
    """The same letters, with BART's special tokens."""
    tokenizer = keras_hub.models.BartTokenizer(vocabulary=VOCABULARY, merges=["a b"])
    return keras_hub.models.BartSeq2SeqLMPreprocessor(
        tokenizer, encoder_sequence_length=encoder_length, decoder_sequence_length=decoder_length
    )


def make(kind, preprocessor=None, **kwargs):
    """A language model of three tasks whose weights are large enough for prompts to matter."""
    backbone = tiny.backbone(kind)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=KINDS[kind], num_virtual_tokens=3, num_tasks=3, task_names=["a", "b", "c"]
    )
    model = keras_mpt.prompt_tune(backbone, config, preprocessor=preprocessor, **kwargs)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) > 1:
            variable.assign(rng.normal(scale=0.5, size=variable.shape))
    model.compile(sampler="greedy")
    return model


def inputs(kind):
    """Two rows of different lengths, padded on the right, for each of the model's stacks."""
    sides = ("",) if KINDS[kind] == "CAUSAL_LM" else ("encoder_", "decoder_")
    x = {f"{side}token_ids": IDS for side in sides}
    return x | {f"{side}padding_mask": (IDS != 0).astype(int) for side in sides}


def generated(out):
    """The tokens among a result."""
    return next(value for name, value in out.items() if name.endswith("token_ids"))
