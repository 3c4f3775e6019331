"""What language models do with next tokens: generate text, and score given ones."""
