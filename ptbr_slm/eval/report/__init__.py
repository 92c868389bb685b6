"""What people read of an evaluation: table, page, plot, lines for a model card."""
