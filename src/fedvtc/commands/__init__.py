"""Commands that a user types, one room each. Nothing heavy is imported at the top."""
