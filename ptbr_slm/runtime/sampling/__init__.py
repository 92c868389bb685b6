"""From logits to a token: penalties, the choice, log probabilities, constraints."""
