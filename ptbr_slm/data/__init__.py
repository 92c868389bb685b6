"""Portuguese text in, token shards out. Nothing here imports torch.

sources/    corpora that `data fetch` brings
read/       documents out of files of each format
stages/     what is done to one document at a time; presets lists the stages of each preset
duplicates/ copies among the documents, exact and near; word_hashes are what they are compared by
decontamination/ evaluation sets, and where a document repeats them
mixture, process, staging, select, hold_out: sources and weights, workers, documents that wait, what is chosen
encode, shards, records, index, prepared: tokens, the folder
pipeline    all of it, in order: `read_documents`, `prepare`, `open_or_prepare`
"""
