"""What a model has learned: numbers as pure functions, and pictures of them.

Pictures need Matplotlib (`pip install keras-mpt[plot]`), numbers do not.
"""

from keras_mpt.analysis.forgetting import forgetting, task_scores
from keras_mpt.analysis.forgetting_monitor import ForgettingMonitor
from keras_mpt.analysis.nearest_tokens import nearest_tokens
from keras_mpt.analysis.plot_curves import plot_curves
from keras_mpt.analysis.plot_forgetting import plot_forgetting
from keras_mpt.analysis.plot_nearest_tokens import plot_nearest_tokens
from keras_mpt.analysis.plot_similarity import plot_similarity
from keras_mpt.analysis.task_similarity import prompt_similarity, task_similarity

__all__ = [
    "ForgettingMonitor",
    "forgetting",
    "nearest_tokens",
    "plot_curves",
    "plot_forgetting",
    "plot_nearest_tokens",
    "plot_similarity",
    "prompt_similarity",
    "task_scores",
    "task_similarity",
]
