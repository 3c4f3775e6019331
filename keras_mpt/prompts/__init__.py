"""What a task's prompt is; it knows nothing of backbones."""
