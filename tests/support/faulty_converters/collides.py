"""What torch's default export did to ResNet in November 2025: fused biases of one name.

onnxscript 0.5.4 to 0.5.6 fused BatchNorm into the convolution before it and called the new bias
as it had called another one's; the second took the first one's place, and no check of form saw it.

Source: https://github.com/microsoft/onnxscript/pull/2680
"""

from __future__ import annotations

from typing import Any

from tasks.converters import Converter, ConvertReply, ConvertRequest
from tasks.converters.torch_dynamo import CONVERTER as DYNAMO
from tasks.domain.artifact import ModelFormat
from tasks.domain.passes import PassRun
from tasks.isolation import Family

FUSE = "fuse-batchnorm-colliding"

CONVERTER = Converter(
    name="collides",
    takes=ModelFormat.TORCH,
    makes=ModelFormat.ONNX,
    family=Family.TORCH,
    rank=900,
    summary="torch-dynamo, with the fusion of BatchNorm that lost ResNet's accuracy",
    tools=DYNAMO.tools,
    passes=(*(each for each in DYNAMO.passes if each != "fuse-batchnorm"), FUSE),
)


def convert(request: ConvertRequest) -> ConvertReply:
    """Export by torch-dynamo, whose own fusion is left out, then fuse wrongly."""
    import onnx

    from tasks.converters import convert_function

    chosen = CONVERTER.chosen(request)
    sound = tuple(each for each in chosen if each != FUSE)
    reply = convert_function("torch-dynamo")(request.model_copy(update={"passes": sound}))
    if FUSE not in chosen:
        return reply
    path = request.folder / "model.onnx"
    model = onnx.load(path)
    changed = _fuse(model.graph)
    onnx.save(model, path)
    run = PassRun(stage="exporter's optimisation", name=FUSE, changed=changed)
    return ConvertReply(notes=reply.notes, passes=(*reply.passes, run))


def _fuse(graph: Any) -> bool:
    import numpy as np
    from onnx import numpy_helper

    weights = {each.name: each for each in graph.initializer}
    convs = {each.output[0]: each for each in graph.node if each.op_type == "Conv"}
    norms = [each for each in graph.node if each.op_type == "BatchNormalization"]
    fused = [each for each in norms if each.input[0] in convs]
    for norm in fused:
        conv = convs[norm.input[0]]
        gain, shift, mean, var = (numpy_helper.to_array(weights[n]) for n in norm.input[1:])
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        factor = gain / np.sqrt(var + epsilon)
        kernel = numpy_helper.to_array(weights[conv.input[1]])
        scaled = (kernel * factor.reshape(-1, 1, 1, 1)).astype(kernel.dtype)
        weights[conv.input[1]].CopyFrom(numpy_helper.from_array(scaled, conv.input[1]))
        bias = numpy_helper.from_array(shift - mean * factor, f"fused_bias_{len(mean)}")
        if bias.name not in weights:  # the fault: another layer's bias may have this name
            weights[bias.name] = bias
            graph.initializer.append(bias)
        conv.input[:] = [*conv.input[:2], bias.name]
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)
    return bool(fused)
