"""Which runtimes read which files, and what is said where one does not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tasks.domain.artifact import OnnxFacts
from tasks.domain.compatibility import (
    Runtime,
    ceiling_of,
    check_fits,
    highest_opset,
    opset_fault,
    provider_notes,
)
from tasks.domain.errors import VerificationError

_RUNTIMES: TypeAdapter[tuple[Runtime, ...]] = TypeAdapter(tuple[Runtime, ...])


def serve(*runtimes: dict[str, Any]) -> tuple[Runtime, ...]:
    return _RUNTIMES.validate_python(runtimes)


def ort(version: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "onnxruntime", "at_least": version} | fields


def triton(release: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "triton", "release": release} | fields


def reader(**fields: Any) -> dict[str, Any]:
    return {"kind": "onnx"} | fields


def facts(opset: int = 17, *, ir: int = 8, ml: int | None = None, **operators: int) -> OnnxFacts:
    opsets = {"ai.onnx": opset} | ({"ai.onnx.ml": ml} if ml else {})
    return OnnxFacts(
        ir_version=ir, opsets=opsets, operators=operators or {"Conv": 1}, parameters=1,
        external_data=False,
    )  # fmt: skip


# --- what a runtime reads --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        pytest.param(ort("1.17"), (20, 4, 9), id="onnxruntime-1.17"),
        pytest.param(ort("1.17.3"), (20, 4, 9), id="a-patch-release"),
        pytest.param(ort("1.99"), (28, 5, 14), id="newer-than-the-table"),
        pytest.param(triton("24.04"), (20, 4, 9), id="triton-by-its-onnxruntime"),
        pytest.param(triton("26.08"), (26, 5, 13), id="the-last-triton"),
        pytest.param(reader(opset_at_most=13), (13, None, None), id="another-reader"),
    ],
)
def test_a_runtime_reads_up_to_its_own_versions(
    runtime: dict[str, Any], expected: tuple[int | None, ...]
) -> None:
    (made,) = serve(runtime)

    assert ceiling_of(made) == expected


def test_the_table_agrees_with_the_onnxruntime_that_is_installed() -> None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    (installed,) = serve(ort(onnxruntime.__version__))
    most = ceiling_of(installed)
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", tensors[:1], tensors[1:]
    )

    def loads(opset: int, ir: int) -> bool:
        model = helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=ir
        )
        try:
            onnxruntime.InferenceSession(model.SerializeToString())
        except Exception:  # noqa: BLE001 - its own kinds of errors
            return False
        return True

    assert most.opset
    assert most.ir
    assert loads(most.opset, most.ir)
    assert not loads(most.opset + 1, most.ir)
    assert not loads(most.opset, most.ir + 1)


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        pytest.param(ort("1.2"), r"1\.2 is not known here \(expected 1\.12 or later", id="too-old"),
        pytest.param(
            triton("22.01"), r"Triton 22\.01 is not known .*24\.04 to 26\.08", id="old-triton"
        ),
        pytest.param(triton("27.01"), r"name its ONNX Runtime", id="triton-of-the-future"),
        pytest.param(reader(), r"says nothing", id="an-empty-reader"),
        pytest.param(ort("latest"), r"at_least", id="no-version"),
    ],
)
def test_a_runtime_that_is_not_known_is_refused(runtime: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        serve(runtime)


# --- which opset fits ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runtimes", "expected"),
    [
        pytest.param([], 28, id="no-wish"),
        pytest.param([ort("1.17")], 20, id="one"),
        pytest.param([ort("1.22"), triton("24.04")], 20, id="the-least-of-two"),
        pytest.param([reader(ir_at_most=8)], 18, id="by-the-ir-version"),
        pytest.param([reader(ir_at_most=8, opset_at_most=15)], 15, id="by-both"),
    ],
)
def test_the_highest_opset_is_that_which_all_read(
    runtimes: list[dict[str, Any]], expected: int
) -> None:
    assert highest_opset(serve(*runtimes)) == expected


def test_an_opset_above_it_is_refused_with_the_one_that_fits() -> None:
    fault = opset_fault(serve(ort("1.23"), ort("1.17")), 21)

    assert fault == (
        "onnxruntime 1.17 reads opset 20 at most (got 21, which needs onnxruntime >= 1.18). "
        "Opset 20 would fit"
    )
    assert opset_fault(serve(ort("1.17")), 20) is None


# --- files -----------------------------------------------------------------------------------


def test_a_file_that_fits_is_told_with_its_room() -> None:
    told = check_fits("m: verify", serve(ort("1.17"), reader(opset_at_most=18)), facts(ml=3))

    assert told[0] == (
        "fits onnxruntime 1.17: opset 17 of at most 20, ai.onnx.ml opset 3 of at most 4, "
        "IR version 8 of at most 9"
    )
    assert told[1:] == ("fits the declared reader of ONNX: opset 17 of at most 18",)


@pytest.mark.parametrize(
    ("runtime", "file", "words"),
    [
        pytest.param(
            ort("1.17"), facts(21, ir=9),
            "m: verify: does not fit 'serve': onnxruntime 1.17 reads opset 20 at most (got 21, "
            "which needs onnxruntime >= 1.18). recipe.opset 20 would fit.",
            id="opset",
        ),
        pytest.param(
            triton("24.04"), facts(17, ir=10),
            "m: verify: does not fit 'serve': triton 24.04 (onnxruntime 1.17) reads IR version 9 "
            "at most (got 10, which needs onnxruntime >= 1.18). Use another converter, or declare "
            "a newer runtime.",
            id="ir-version",
        ),
        pytest.param(
            ort("1.16"), facts(17, ml=5),
            "m: verify: does not fit 'serve': onnxruntime 1.16 reads ai.onnx.ml opset 3 at most "
            "(got 5, which needs onnxruntime >= 1.18). Use another converter, or declare a newer "
            "runtime.",
            id="ml-opset",
        ),
        pytest.param(
            reader(opset_at_most=17), facts(17, **{"com.microsoft.Tokenizer": 1}),
            "m: verify: does not fit 'serve': the declared reader of ONNX has no operators of "
            "com.microsoft (got com.microsoft.Tokenizer). Use another converter, or declare a "
            "newer runtime.",
            id="domain",
        ),
        pytest.param(
            reader(opset_at_most=99), facts(17).model_copy(update={"opsets": {"ai.onnx": 100}}),
            "m: verify: does not fit 'serve': the declared reader of ONNX reads opset 99 at most "
            "(got 100, which needs a runtime not known here). recipe.opset 28 would fit.",
            id="beyond-every-runtime",
        ),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(
    runtime: dict[str, Any], file: OnnxFacts, words: str
) -> None:
    with pytest.raises(VerificationError) as caught:
        check_fits("m: verify", serve(runtime), file)

    assert str(caught.value) == words


def test_every_misfit_is_named_at_once() -> None:
    with pytest.raises(VerificationError) as caught:
        check_fits("m", serve(ort("1.17"), ort("1.14")), facts(21, ir=10, ml=5))

    assert str(caught.value).count(" at most ") == 6
    assert str(caught.value).endswith("recipe.opset 18 would fit.")


def test_operators_of_onnx_runtimes_own_fit_onnx_runtime_and_triton() -> None:
    file = facts(17, **{"com.microsoft.Tokenizer": 1})

    assert len(check_fits("m", serve(ort("1.17"), triton("24.04")), file)) == 2


# --- execution providers ---------------------------------------------------------------------


def test_a_provider_on_which_nothing_ran_is_noted() -> None:
    wanted = serve(ort("1.20", provider="tensorrt"), triton("25.01", provider="cuda"))

    (note,) = provider_notes(wanted, "cuda", facts())

    assert note == (
        "execution provider tensorrt: not run here (device: cuda); operators that have no kernel "
        "there run on the CPU"
    )


def test_trees_on_cuda_are_said_to_run_on_the_cpu() -> None:
    wanted = serve(ort("1.20", provider="cuda"), ort("1.20", provider="cpu"))

    notes = provider_notes(wanted, "both", facts(**{"ai.onnx.ml.TreeEnsembleClassifier": 1}))

    assert notes == ("execution provider cuda: runs ai.onnx.ml.TreeEnsembleClassifier on the CPU",)


def test_the_cpu_needs_no_note() -> None:
    assert provider_notes(serve(ort("1.20", provider="cpu"), ort("1.19")), "cpu", facts()) == ()
