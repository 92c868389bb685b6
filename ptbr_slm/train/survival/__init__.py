"""What keeps a run alive: guards against bad steps, memory that runs out, sessions that end."""
