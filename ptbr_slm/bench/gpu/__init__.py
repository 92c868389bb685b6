"""`ptbr-slm bench gpu`: what only a card can answer, in ten minutes, every part in a process of its own."""
