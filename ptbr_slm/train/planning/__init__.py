"""What is decided before the first step: memory, speed, and the setting that fits."""
