"""Guesses at the next tokens, which one run of the model then checks (speculative decoding)."""
