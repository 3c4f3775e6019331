"""The paper's two stages: teachers and distillation, then adaptation to new tasks."""
