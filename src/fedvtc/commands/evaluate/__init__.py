"""`fedvtc evaluate`: the final models of a run on other test sets."""
