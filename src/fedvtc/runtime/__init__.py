"""Processes in which clients live: pools, placement, recovery. No rounds, no trackers; Ray in `actors/` only."""
