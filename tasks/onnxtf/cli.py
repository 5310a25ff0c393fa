"""The command line of onnx-tf: ``python -m tasks.onnxtf.cli convert -i model.onnx -o folder``."""

from __future__ import annotations

import sys

from tasks.domain.errors import ReleaseError


def main() -> int:
    """Run onnx-tf's own command line, mended; return the exit code."""
    from tasks.onnxtf.backend import load_backend

    load_backend()
    from onnx_tf.cli import main as onnx_tf_main

    try:
        onnx_tf_main()
    except ReleaseError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's answer
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
