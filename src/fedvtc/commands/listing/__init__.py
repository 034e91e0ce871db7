"""`fedvtc list`: tables of runs, cluster jobs, data sets, backbones and methods. Reads only."""
