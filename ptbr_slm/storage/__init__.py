"""Files that survive: atomic writes, manifests with sha256, the model folder, the lock of a run."""
