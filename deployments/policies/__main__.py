"""Print a policy; see ``deployments.policies``."""

from __future__ import annotations

import argparse
import json
import sys

from deployments.policies import ROLES, policy

parser = argparse.ArgumentParser(prog="deployments.policies", description=__doc__)
parser.add_argument("role", choices=ROLES)
parser.add_argument("--bucket", default="models")
parser.add_argument("--models", nargs="+", default=["*"], help="that it may write, such as iris-*")
options = parser.parse_args()
sys.stdout.write(f"{json.dumps(policy(options.role, options.bucket, options.models), indent=2)}\n")
