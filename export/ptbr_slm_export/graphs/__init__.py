"""One module a graph, and the pen, weights and matrix products that they share."""
