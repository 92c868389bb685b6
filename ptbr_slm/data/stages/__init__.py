"""What cleaning does to one document. A stage is a function of a text alone; the pipeline counts."""
