"""Shows runs: rows, tables, means over seeds, figures. Reads run folders only: no tracker, no training, no command."""
