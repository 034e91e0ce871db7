"""`fedvtc plan`: what a run would do, computed from its config. Trains nothing, starts no Ray."""
