"""ONNX Runtime's execution providers: sessions, the memory of their tensors, the libraries they need."""
