"""Training: from prepared data to a model folder, in a run that survives being killed."""
