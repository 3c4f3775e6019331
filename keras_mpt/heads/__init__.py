"""What stands after the backbone: from its features to logits."""
