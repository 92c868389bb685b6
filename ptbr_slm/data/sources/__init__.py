"""Corpora with an open licence that `data fetch` brings: an entry for each in `fetch.SOURCES`."""
