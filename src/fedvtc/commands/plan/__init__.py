"""`fedvtc plan`: partition, traffic and memory of a run, computed from its config. Trains nothing, starts no Ray."""
