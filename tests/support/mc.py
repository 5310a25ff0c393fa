#!/usr/bin/env python3
"""Stands for MinIO's client ``mc``, which is not at hand: does to a file what that does to a store.

As its source has it (cmd/alias-set.go, admin-user-add.go, admin-policy-create.go): keys come by
standard input where they are no arguments, an alias is refused to who is not let in, a policy and
a user are written anew where they are there. Attaching twice is refused, as by older versions.
Whether somebody is let in is asked of the real store.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

STATE = Path(os.environ["MC_STATE"])


def main(words: list[str]) -> str:
    known: dict[str, Any] = json.loads(STATE.read_text()) if STATE.exists() else {}
    told = known.setdefault("told", [])
    told.append(words)
    match words:
        case ["alias", "set", alias, url]:
            key, secret = keys()
            let_in(url, key, secret)
            known["alias"] = alias
        case ["admin", "policy", "create", alias, name, file] if alias == known["alias"]:
            known.setdefault("policies", {})[name] = json.loads(Path(file).read_text())
        case ["admin", "user", "add", alias] if alias == known["alias"]:
            key, secret = keys()
            user = known.setdefault("users", {}).setdefault(key, {"policies": []})
            user["secret"] = secret
        case ["admin", "user", "info", alias, key] if alias == known["alias"]:
            return f"AccessKey: {key}\nPolicyName: {','.join(known['users'][key]['policies'])}"
        case ["admin", "policy", "attach", alias, name, "--user", key] if alias == known["alias"]:
            if name in known["users"][key]["policies"] or name not in known["policies"]:
                sys.exit("mc: The specified policy change is already in effect.")
            known["users"][key]["policies"].append(name)
        case _:
            sys.exit(f"mc: no such command: {words}")
    STATE.write_text(json.dumps(known))
    return f"Added {words[-1]}"


def keys() -> tuple[str, str]:
    key, secret = sys.stdin.read().splitlines()
    if not (3 <= len(key) <= 20 and 8 <= len(secret) <= 40):
        sys.exit("mc: a key has 3 to 20 characters, a secret 8 to 40")
    return key, secret


def let_in(url: str, key: str, secret: str) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    once = Config(retries={"total_max_attempts": 1})
    session = boto3.Session(key, secret, region_name="us-east-1")
    client = session.client("s3", endpoint_url=url, config=once)
    try:
        client.list_buckets()
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"mc: Unable to initialize new alias from the provided credentials. {error}")


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]) + "\n")
