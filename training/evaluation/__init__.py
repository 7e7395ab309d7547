"""Protocols that say how good a frozen or fine-tuned backbone is."""
