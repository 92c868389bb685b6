"""Steps that look at one document at a time, each with its rule and its source; `presets` lists them."""
