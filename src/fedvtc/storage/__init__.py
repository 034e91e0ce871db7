"""Reads, writes and checks the files of a run: run folder, records, checkpoints. No training, terminal or tracker."""
