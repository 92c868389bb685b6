"""Tasks: what a model is asked and how its answers are judged, as data (a YAML a task)."""
