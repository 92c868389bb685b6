"""Generate text from an export (ONNX Runtime, no torch) or a model folder (PyTorch)."""
