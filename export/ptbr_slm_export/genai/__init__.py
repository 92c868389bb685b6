"""Exports for onnxruntime-genai: the graph with its inputs, and the files that it reads beside it."""
