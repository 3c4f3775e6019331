"""Frozen keras-hub backbones with prompts."""

from keras_mpt.models.prompt_tuned_backbone import PromptTunedBackbone
from keras_mpt.models.prompt_tuned_causal_lm import PromptTunedCausalLM
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.models.prompt_tuned_seq2seq_lm import PromptTunedSeq2SeqLM
from keras_mpt.models.prompt_tuned_text_classifier import PromptTunedTextClassifier
from keras_mpt.models.task_heads import TaskHeads

__all__ = [
    "PromptTunedBackbone",
    "PromptTunedCausalLM",
    "PromptTunedModel",
    "PromptTunedSeq2SeqLM",
    "PromptTunedTextClassifier",
    "TaskHeads",
]
