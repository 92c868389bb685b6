"""What a run shows: progress, records, samples, loggers, the report."""
