"""``python -m sa1b_fastdecode``."""

import sys

from .cli import main

sys.exit(main())
