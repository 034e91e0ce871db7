"""`fedvtc features`: features of real and generated images, for `fedvtc report`."""
