"""What a run shows: progress, records, loggers, the report."""
