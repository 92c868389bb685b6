"""Minimal pairs of Brazilian Portuguese: which of two sentences does a model find likelier?"""
