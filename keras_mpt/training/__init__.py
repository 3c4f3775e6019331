"""Training the paper's way: two learning rates, and runs that can be interrupted and resumed."""

from keras_mpt.training.resume import ResumeTraining
from keras_mpt.training.two_speed import two_speed_optimizer

__all__ = ["ResumeTraining", "two_speed_optimizer"]
