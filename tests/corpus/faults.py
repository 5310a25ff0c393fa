"""All planted faults, by name."""

from __future__ import annotations

from tests.corpus import other_faults, picture_faults

FAULTS = {
    each.name: each for each in (*picture_faults.FAULTS, *other_faults.TEXT, *other_faults.TABLES)
}
