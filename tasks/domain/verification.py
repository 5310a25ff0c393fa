"""What checking a published release says."""

from __future__ import annotations

from pydantic import PositiveInt

from tasks.domain.artifact import Sha256, Slug
from tasks.domain.value import Value

_NAMES_SAID = 20


class Fault(Value):
    """One file that is not what it must be."""

    path: str
    """Below the release, such as ``onnx/model.onnx``."""
    what: str
    """What is wrong with it, in words."""


class Check(Value):
    """One thing that was checked."""

    name: str
    """Such as ``signature``."""
    words: str
    """What holds; where it does not, what was not checked, or nothing."""
    faults: tuple[Fault, ...] = ()
    skipped: bool = False
    """It could not be checked, because an earlier check failed: that is no pass."""

    @property
    def passed(self) -> bool:
        """Whether it was checked, and nothing is wrong."""
        return not self.faults and not self.skipped

    def line(self) -> str:
        """Write the check in one line, with the name of every file that is wrong."""
        if self.passed:
            return f"ok    {self.name}: {self.words}"
        if self.skipped:
            return f"--    {self.name}: {self.words}"
        said = [f"{each.path}: {each.what}" for each in self.faults[:_NAMES_SAID]]
        more = len(self.faults) - len(said)
        return f"WRONG {self.name}: {'; '.join(said)}{f'; and {more} more' if more else ''}"


class Verification(Value):
    """Every check of one release."""

    where: str
    """The folder or the URL that was checked."""
    model: Slug | None
    """As its manifest says; absent where that cannot be read."""
    version: PositiveInt | None
    public_key: Sha256
    """Fingerprint of the key that it was held to."""
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check was made and holds."""
        return bool(self.checks) and all(each.passed for each in self.checks)

    @property
    def wrong(self) -> tuple[str, ...]:
        """The paths of all files that are wrong, each once, sorted."""
        return tuple(sorted({fault.path for each in self.checks for fault in each.faults}))
