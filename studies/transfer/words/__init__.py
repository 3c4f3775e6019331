"""SmolLM2, which answers in words."""
