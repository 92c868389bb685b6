"""Checkpoints: written, found, restored, and removed when there are too many."""
