"""Exports on ONNX Runtime: the folder and its checks, IO bindings, KV buffers, providers."""
