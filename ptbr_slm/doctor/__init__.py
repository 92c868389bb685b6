"""`ptbr-slm doctor`: facts of the machine, and what they mean for a user."""
