"""What a run does about bad steps, loss spikes and memory that runs out."""
