"""`fedvtc list`: tables of runs, jobs, data sets, backbones and methods."""
