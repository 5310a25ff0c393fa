"""torch-dynamo's optimiser, pass by pass, is torch's own; any pass can be left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from tasks.converters import ConvertRequest, all_converters
from tasks.converters.torch_passes import PASSES
from tasks.domain.errors import ConfigurationError
from tasks.isolation import Call, Children, Family
from tasks.steps.canonical import FingerprintRequest, fingerprint
from tests.support import pass_functions
from tests.support.pass_functions import NETS, Net, Optimised

if TYPE_CHECKING:
    from pathlib import Path


def _optimise(children: Children, folder: Path, net: str, **how: object) -> Optimised:
    folder.mkdir()
    request = Net.model_validate({"name": net, "folder": folder} | how)
    call = Call("optimise", net, Family.TORCH)
    return children.call(pass_functions.optimise, request, call).value


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("net", NETS)
def test_all_passes_together_write_what_torch_writes(
    children: Children, tmp_path: Path, net: str, opset: int
) -> None:
    _optimise(children, tmp_path / "torch", net, opset=opset, by_torch=True)
    ours = _optimise(children, tmp_path / "ours", net, opset=opset)

    theirs, mine = (
        fingerprint(FingerprintRequest(model=tmp_path / side)).canonical
        for side in ("torch", "ours")
    )
    assert mine == theirs
    assert [each.name for each in ours.passes] == list(PASSES)
    assert any(each.changed for each in ours.passes)


def test_every_rule_of_torchs_optimiser_belongs_to_a_pass_in_its_order(children: Children) -> None:
    call = Call("rules", "onnxscript", Family.TORCH)

    rules = children.call(pass_functions.count_rules, Net(name="resnet"), call).value

    assert rules.ours == rules.theirs
    assert rules.same_order


def test_a_pass_that_is_not_asked_for_does_not_run(children: Children, tmp_path: Path) -> None:
    without = tuple(name for name in PASSES if name != "fuse-batchnorm")

    _optimise(children, tmp_path / "raw", "resnet", passes=())
    part = _optimise(children, tmp_path / "part", "resnet", passes=without)
    every = _optimise(children, tmp_path / "all", "resnet")

    kinds = {side: _operators(tmp_path / side) for side in ("raw", "part", "all")}
    assert "BatchNormalization" in kinds["raw"]
    assert "BatchNormalization" in kinds["part"]
    assert "BatchNormalization" not in kinds["all"]
    assert [each.name for each in part.passes] == list(without)
    changed = {each.name for each in every.passes if each.changed}
    assert "fuse-batchnorm" in changed
    assert "collapse-slices" not in changed


def test_a_pass_that_raises_is_left_out_and_the_others_run(
    children: Children, tmp_path: Path
) -> None:
    broken = _optimise(children, tmp_path / "broken", "resnet", raises="fuse-batchnorm")

    runs = {each.name: each for each in broken.passes}
    assert "ZeroDivisionError" in runs["fuse-batchnorm"].error
    assert not runs["fuse-batchnorm"].may_matter
    assert [each.error for name, each in runs.items() if name != "fuse-batchnorm"] == [""] * (
        len(PASSES) - 1
    )
    assert "BatchNormalization" in _operators(tmp_path / "broken")
    onnx.checker.check_model(tmp_path / "broken" / "model.onnx", full_check=True)


def _operators(folder: Path) -> set[str]:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    functions = [node for each in model.functions for node in each.node]
    return {node.op_type for node in (*model.graph.node, *functions)}


def test_a_pass_that_a_converter_does_not_have_is_named(tmp_path: Path) -> None:
    from tests.contract.test_torch_exporters import _recipe

    (dynamo,) = [each for each in all_converters() if each.name == "torch-dynamo"]
    request = ConvertRequest(recipe=_recipe(), source=tmp_path, folder=tmp_path, passes=("polish",))

    with pytest.raises(ConfigurationError, match="torch-dynamo: no pass 'polish'"):
        dynamo.chosen(request)

    assert dynamo.chosen(request.model_copy(update={"passes": None})) == PASSES
    assert dynamo.chosen(request.model_copy(update={"passes": ("inline",)})) == ("inline",)
