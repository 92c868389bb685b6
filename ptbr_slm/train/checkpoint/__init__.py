"""What outlives a process: checkpoints, and which of them a run goes on from."""
