"""`fedvtc list`: tables of runs, cluster jobs, shipped configs, data sets, backbones and methods. Reads only."""
