"""A card below the engine: the CUDA session, its memory, its sampler, and what may be missing."""
