"""Corpora that `data fetch` brings: an entry for each in `catalogue.SOURCES`."""
