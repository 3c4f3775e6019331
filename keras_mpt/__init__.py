"""Multitask Prompt Tuning (Wang et al., ICLR 2023) for Keras 3."""

from keras_mpt import analysis, models, recipes
from keras_mpt.bank.prompt_bank import PromptBank
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_values import (
    MultitaskPromptTuningInit,
    PeftType,
    PromptTuningInit,
    TaskType,
)
from keras_mpt.data.few_shot import few_shot
from keras_mpt.data.stack_tasks import stack_tasks
from keras_mpt.data.task_mix import TaskMix
from keras_mpt.files.state_dict import read_state_dict
from keras_mpt.hugging_face.backbone import backbone_from_pretrained
from keras_mpt.hugging_face.gguf import convert_gguf
from keras_mpt.hugging_face.masked_lm import masked_lm_from_pretrained
from keras_mpt.hugging_face.t5 import t5_from_pretrained
from keras_mpt.models.load_prompt import load_prompt
from keras_mpt.models.prompt_tune import load_adapter, prompt_tune
from keras_mpt.prompts.multitask_prompt_embedding import MultitaskPromptEmbedding
from keras_mpt.prompts.parameter_count import (
    full_prompt_parameter_count,
    multitask_parameter_count,
)
from keras_mpt.prompts.prompt_embedding import PromptEmbedding
from keras_mpt.scaling.backbone_parallel import BackboneParallel
from keras_mpt.scaling.estimate_memory import MemoryEstimate, estimate_memory
from keras_mpt.training.adapt import adapt
from keras_mpt.training.distillation import Distillation
from keras_mpt.training.resume import ResumeTraining
from keras_mpt.training.sparse_training import SparseTraining
from keras_mpt.training.train_teachers import train_teachers
from keras_mpt.training.two_speed import two_speed_optimizer
from keras_mpt.version import __version__

__all__ = [
    "BackboneParallel",
    "Distillation",
    "MemoryEstimate",
    "MultitaskPromptEmbedding",
    "MultitaskPromptTuningConfig",
    "MultitaskPromptTuningInit",
    "PeftType",
    "PromptBank",
    "PromptEmbedding",
    "PromptTuningConfig",
    "PromptTuningInit",
    "ResumeTraining",
    "SparseTraining",
    "TaskMix",
    "TaskType",
    "__version__",
    "adapt",
    "analysis",
    "backbone_from_pretrained",
    "convert_gguf",
    "estimate_memory",
    "few_shot",
    "full_prompt_parameter_count",
    "load_adapter",
    "load_prompt",
    "masked_lm_from_pretrained",
    "models",
    "multitask_parameter_count",
    "prompt_tune",
    "read_state_dict",
    "recipes",
    "stack_tasks",
    "t5_from_pretrained",
    "train_teachers",
    "two_speed_optimizer",
]
