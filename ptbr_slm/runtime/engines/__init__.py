"""The engines: exports on ONNX Runtime, model folders on PyTorch."""
