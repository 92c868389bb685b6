"""ONNX Runtime below an export: the folder and its checks, sessions, IO bindings, KV buffers."""
