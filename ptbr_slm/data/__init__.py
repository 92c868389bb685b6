"""Portuguese text in, token shards out: fetch, read, clean, prepare, open. Nothing here imports torch."""
