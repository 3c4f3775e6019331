"""Frozen keras-hub backbones with prompts."""

from keras_mpt.heads.task_heads import TaskHeads
from keras_mpt.models.prompt_tuned_backbone import PromptTunedBackbone
from keras_mpt.models.prompt_tuned_causal_lm import PromptTunedCausalLM
from keras_mpt.models.prompt_tuned_masked_lm import PromptTunedMaskedLM
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.models.prompt_tuned_question_answerer import (
    PromptTunedQuestionAnswerer,
    best_spans,
)
from keras_mpt.models.prompt_tuned_seq2seq_lm import PromptTunedSeq2SeqLM
from keras_mpt.models.prompt_tuned_text_classifier import PromptTunedTextClassifier
from keras_mpt.models.prompt_tuned_token_classifier import PromptTunedTokenClassifier

__all__ = [
    "PromptTunedBackbone",
    "PromptTunedCausalLM",
    "PromptTunedMaskedLM",
    "PromptTunedModel",
    "PromptTunedQuestionAnswerer",
    "PromptTunedSeq2SeqLM",
    "PromptTunedTextClassifier",
    "PromptTunedTokenClassifier",
    "TaskHeads",
    "best_spans",
]
