"""Copies among the documents: exact ones, and near ones by MinHash verified by real Jaccard."""
