"""Generate text from an export (ONNX Runtime, no torch) or a model folder (PyTorch).

Read in this order: protocol.py (what an engine does), sequence.py (one text), prompt.py (how it begins),
pace.py (how much of a prompt a step reads), batch.py (a step of many), cache.py (prefixes that are reused),
engine_loop.py (the engine's thread), model.py (what users call).
"""
