"""`fedvtc export`: models, generators, statistics and generated images of a run, readable without fedvtc."""
