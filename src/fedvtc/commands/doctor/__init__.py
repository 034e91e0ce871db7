"""`fedvtc doctor`: checks of this machine and of a run folder. Starts and changes nothing, shows no secret."""
