"""`fedvtc privacy`: measures of what a finished run reveals about training images."""
