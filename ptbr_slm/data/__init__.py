"""Portuguese text in, token shards out. Nothing here imports torch.

sources/    corpora that `data fetch` brings
read/       documents out of files of each format
stages/     what is done to one document at a time; presets lists the stages of each preset
duplicates, hold_out, encode, shards, index, prepared: copies, the validation split, tokens, the folder
pipeline    all of it, in order: `read_documents`, `prepare`, `open_or_prepare`
"""
