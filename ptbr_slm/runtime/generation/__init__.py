"""From prompts to texts: the loop over an engine, and what it keeps of each text."""
