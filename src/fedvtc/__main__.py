"""`python -m fedvtc`."""

import sys

from fedvtc.cli import main

sys.exit(main())
