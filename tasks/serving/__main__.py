"""``python -m tasks.serving``: see ``tasks.serving.command``."""

from __future__ import annotations

import sys

from tasks.serving.command import main

if __name__ == "__main__":
    sys.exit(main())
