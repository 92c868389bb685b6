"""One module a graph, and the writer and matrix products that they share."""
