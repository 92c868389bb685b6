"""Generate text from an export (ONNX Runtime, no torch) or a model folder (PyTorch).

Read in this order: protocol.py (what an engine does), sequence.py (one text), prompt.py (how it begins),
batch.py (a step of many), cache.py (prefixes that are reused), engine_loop.py (many threads), model.py (what
users call).
"""
