"""Files of a run and checks of them: run folder, records, checkpoints. No training, no terminal, no tracker."""
