"""How embeddings enter a frozen graph; it knows nothing of tasks."""
