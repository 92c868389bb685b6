"""The tokenizer: `Tokenizer` opens any Hugging Face tokenizer.json and trains ours."""

from ptbr_slm.tokenizer.tokenizer import StreamDecoder, Tokenizer
from ptbr_slm.tokenizer.training import LLAMA_BPE_SPLIT, MIN_VOCAB_SIZE, SPECIAL_TOKENS

__all__ = ["LLAMA_BPE_SPLIT", "MIN_VOCAB_SIZE", "SPECIAL_TOKENS", "StreamDecoder", "Tokenizer"]
