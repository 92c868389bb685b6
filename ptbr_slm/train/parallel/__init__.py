"""The processes that compute a step together."""
