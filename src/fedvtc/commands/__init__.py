"""Commands that a user types: parsers, help and output. No rules of a run, nothing heavy imported at the top."""
