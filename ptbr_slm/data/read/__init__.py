"""Documents out of files: which files an input names, and a reader for each format."""
