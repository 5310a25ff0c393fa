"""A process that moves an alias, again and again, as one of many who do.

python -m tests.support.promoter MODEL ALIAS BY VERSION…: promotes to each version in turn; the
store's settings are in the environment. It waits for a line on its input before it begins.
"""

from __future__ import annotations

import sys

from tasks.settings import store_settings
from tasks.storage.aliases import promote
from tasks.storage.s3_inventory import open_inventory

if __name__ == "__main__":
    model, alias, by, *versions = sys.argv[1:]
    store = open_inventory(store_settings())
    store.now()  # the connection and the imports are made
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for version in map(int, versions):
        promote(store, model, alias, version, by=by)
