"""What a person sees of a run: progress, records, samples, loggers, the report."""
