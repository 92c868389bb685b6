"""A model folder as one GGUF file for llama.cpp: the file, its tensors by name, its tokenizer."""
