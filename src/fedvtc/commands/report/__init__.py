"""The command `fedvtc report`."""
