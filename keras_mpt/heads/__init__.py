"""What stands behind the backbone: from its features to logits."""
