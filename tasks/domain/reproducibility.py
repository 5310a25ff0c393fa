"""Whether an export repeats, and which part of it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.domain.artifact import Canonical, OnnxFacts, Sha256
from tasks.domain.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.domain.release import Manifest, Release


class Fingerprint(Value):
    """What of an ONNX file can differ from one export to the next."""

    canonical: Canonical
    opsets: dict[str, int]
    operators: dict[str, int]
    weights: dict[str, Sha256] = {}
    """Digest of each weight, by its name in the file; empty where only a manifest is at hand."""


def difference(before: Fingerprint, after: Fingerprint) -> tuple[str, ...]:
    """Say which parts of two exports differ, and which are alike; empty if they are the same.

    Weights are compared by their names where both files use the same names, else by content.
    """
    if before.canonical.sha256 == after.canonical.sha256:
        return ()
    words = [
        f"opsets differ: {_changes(before.opsets, after.opsets)}",
        "signature differs",
        f"graph differs: {_changes(before.operators, after.operators)}",
        f"weights differ{_weights(before.weights, after.weights)}",
    ]
    parts = ("opsets", "signature", "graph", "weights")
    different = [
        getattr(before.canonical, part) != getattr(after.canonical, part) for part in parts
    ]
    said = [text for text, differs in zip(words, different, strict=True) if differs]
    alike = [part for part, differs in zip(parts, different, strict=True) if not differs]
    if not said:
        said = ["equal weights stand at other places of the graph"]
    return (*said, f"alike: {', '.join(alike)}") if alike else tuple(said)


def _changes(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    changed = [
        f"{name} {before.get(name, 0)}, then {after.get(name, 0)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    return "; ".join(changed) or "the same operators, joined or set otherwise"


def _weights(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    if not (before and after):
        return ""
    if before.keys() == after.keys():
        changed = [name for name in before if before[name] != after[name]]
        return f": {len(changed)} of {len(after)}, first {changed[0]}" if changed else ""
    known = set(before.values())
    new = [name for name, digest in after.items() if digest not in known]
    first = f", first {new[0]}" if new else ""
    return f": {len(new)} of {len(after)} are not among the {len(before)} before{first}"


def repeats(before: Manifest, release: Release, tools: Mapping[str, str]) -> str | None:
    """Say whether a release's ONNX file repeats that of the release before it.

    Args:
        before: The manifest of the release before.
        release: What is to be published.
        tools: Versions of the packages that took part.

    Returns:
        One sentence; ``None`` where nothing can be said: another recipe, other tools, another
        converter, or no canonical digest on either side.
    """
    ours = next((each for each in release.candidates if each.verified.onnx), None)
    theirs = next((each for each in before.formats if each.onnx), None)
    if ours is None or theirs is None:
        return None
    then, now = _from_facts(theirs.onnx), _from_facts(ours.verified.onnx)
    work = (release.source.recipe, dict(tools), ours.converter)
    if then is None or now is None or (before.recipe, before.tools, theirs.converter) != work:
        return None
    found = difference(then, now)
    if not found:
        return f"repeats version {before.version}: the same canonical digest"
    source = release.source.artifact.tree.sha256
    also = "" if source == before.source_sha256 else "; the source model's files differ too"
    return (
        f"does not repeat version {before.version}, though recipe and tools are the same: "
        f"{'; '.join(found)}{also}"
    )


def with_note_on_repetition(
    release: Release, before: Manifest | None, tools: Mapping[str, str]
) -> Release:
    """Return the release with a note on its ONNX file, where ``repeats`` has something to say."""
    note = repeats(before, release, tools) if before else None
    if note is None:
        return release
    candidates = tuple(
        each.model_copy(update={"notes": (*each.notes, note)}) if each.verified.onnx else each
        for each in release.candidates
    )
    return release.model_copy(update={"candidates": candidates})


def _from_facts(facts: OnnxFacts | None) -> Fingerprint | None:
    if facts is None or facts.canonical is None:
        return None
    return Fingerprint(canonical=facts.canonical, opsets=facts.opsets, operators=facts.operators)
