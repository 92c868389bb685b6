"""Evaluation sets kept out of the training text: their items, and where a document repeats one."""
