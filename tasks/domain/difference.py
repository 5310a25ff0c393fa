"""What differs between two releases: a rule over their manifests, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import PositiveInt

from tasks.domain.artifact import Slug
from tasks.domain.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.domain.parity import ParityReport
    from tasks.domain.release import Manifest, PublishedFormat
    from tasks.domain.variants import PublishedVariant

Topic: TypeAlias = Literal[
    "recipe", "source", "metrics", "formats", "opset", "operators", "parity", "files", "seconds",
    "memory", "tools", "host",
]  # fmt: skip
Scalar: TypeAlias = bool | int | float | str | None
Facts: TypeAlias = dict[tuple[Topic, str], Scalar]


class Change(Value):
    """One fact that differs; None on the side that does not have it."""

    topic: Topic
    name: str
    before: Scalar
    after: Scalar

    @property
    def factor(self) -> float | None:
        """How many times as large the number became; None where that means nothing."""
        if not (_is_number(self.before) and _is_number(self.after)):
            return None
        return float(self.after) / float(self.before) if self.before else None  # type: ignore[arg-type]


class Difference(Value):
    """What differs between two versions of a model, topic by topic."""

    model: Slug
    before: PositiveInt
    after: PositiveInt
    changes: tuple[Change, ...]
    unchanged: int
    """How many facts both have alike."""


def difference(before: Manifest, after: Manifest) -> Difference:
    """Compare two releases fact by fact.

    Numerics are the error figures of parity, per output of each probe; sizes are those of
    formats and files. ``ms_per_row`` is how long a format took to answer a row of the probes, and
    ``seconds`` are those of the stages that made the release, both on the host that made it.
    """
    old, new = _facts(before), _facts(after)
    names = [*old, *(name for name in new if name not in old)]
    changes = tuple(
        Change(topic=topic, name=name, before=old.get((topic, name)), after=new.get((topic, name)))
        for topic, name in names
        if old.get((topic, name)) != new.get((topic, name))
    )
    return Difference(
        model=after.model,
        before=before.version,
        after=after.version,
        changes=tuple(sorted(changes, key=lambda each: _ORDER[each.topic])),
        unchanged=len(names) - len(changes),
    )


_ORDER: dict[str, int] = {
    topic: place
    for place, topic in enumerate(
        ("recipe", "source", "metrics", "formats", "opset", "operators", "parity", "files",
         "seconds", "memory", "tools", "host")
    )
}  # fmt: skip


def _facts(manifest: Manifest) -> Facts:
    facts: Facts = {
        ("source", "format"): manifest.source_format,
        ("source", "sha256"): manifest.source_sha256,
        ("source", "seeded"): manifest.seeded,
        ("source", "runtime"): manifest.reference_runtime,
    }
    recipe = manifest.recipe.model_dump(mode="json")
    facts |= {("recipe", name): value for name, value in _leaves(recipe)}
    facts |= {("metrics", name): value for name, value in manifest.metrics.items()}
    for each in manifest.formats:
        facts |= _format_facts(each)
    for variant in manifest.variants:
        facts |= _variant_facts(variant)
    facts |= {
        ("files", file.path): f"{file.size_bytes:,} bytes, sha256 {file.sha256[:12]}"
        for file in manifest.files
    }
    facts |= {("seconds", stage): cost.seconds for stage, cost in manifest.costs.items()}
    facts |= {("memory", stage): cost.peak_mb for stage, cost in manifest.costs.items()}
    facts |= {("tools", name): version for name, version in manifest.tools.items()}
    facts |= {("host", name): value for name, value in manifest.host.items()}
    return facts


def _format_facts(published: PublishedFormat) -> Facts:
    folder = published.folder
    facts: Facts = {
        ("formats", f"{folder} converter"): published.converter,
        ("formats", f"{folder} size_bytes"): published.size_bytes,
        ("formats", f"{folder} sha256"): published.sha256,
        ("formats", f"{folder} ms_per_row"): published.ms_per_row,
        ("parity", f"{folder} runtime"): published.parity.runtime,
        ("parity", f"{folder} profile"): published.parity.profile,
        ("parity", f"{folder} budget"): published.parity.budget,
    }
    if published.onnx is not None:
        onnx = published.onnx
        facts[("formats", f"{folder} parameters")] = onnx.parameters
        facts[("formats", f"{folder} external_data")] = onnx.external_data
        facts[("opset", f"{folder} ir_version")] = onnx.ir_version
        facts |= {("opset", f"{folder} {name}"): number for name, number in onnx.opsets.items()}
        facts |= {("operators", f"{folder} {name}"): n for name, n in onnx.operators.items()}
    return facts | _parity_facts(folder, published.parity)


def _parity_facts(folder: str, report: ParityReport) -> Facts:
    facts: Facts = {}
    for probe in report.probes:
        for output in probe.outputs:
            where = f"{folder} {probe.probe}/{output.name}"
            facts[("parity", f"{where} mismatched")] = output.mismatched
            spread = output.errors.model_dump(exclude={"histogram"}) if output.errors else {}
            noise = (
                output.noise.model_dump(include={"ratio_max", "ratio_rms"}) if output.noise else {}
            )
            spread |= {f"noise {name}": value for name, value in noise.items()}
            facts |= {("parity", f"{where} {name}"): value for name, value in spread.items()}
    return facts


def _variant_facts(variant: PublishedVariant) -> Facts:
    name = f"{variant.parent.folder}-{variant.kind}"
    facts: Facts = {
        ("formats", f"{name} released"): variant.released,
        ("formats", f"{name} size_bytes"): variant.size_bytes,
        ("formats", f"{name} sha256"): variant.sha256,
        ("formats", f"{name} time by its parent's"): variant.race.ratio if variant.race else None,
    }
    if variant.agreement:
        facts[("metrics", f"{name} top-1 as the source")] = variant.agreement.top1_equal
        facts[("metrics", f"{name} accuracy")] = variant.agreement.accuracy
    return facts | (_parity_facts(name, variant.parity) if variant.parity else {})


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Scalar]]:  # noqa: ANN401 - JSON
    """Yield each scalar of a JSON document under its dotted path."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _leaves(below, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for place, below in enumerate(value):
            yield from _leaves(below, f"{path}[{place}]")
    else:
        yield path, value


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
