"""onnx-tf 1.10 on today's onnx and TensorFlow: from an ONNX graph to a SavedModel.

onnx-tf was last released in 2022. What stands here keeps it at work: stand-ins for the
modules it imports that are gone (``compat``), the operators and operator versions that came
since (``shaping``, ``arithmetic``, ``networks``, ``convolution``, ``pooling``,
``resizing``, ``recurrent``, ``estimators``, ``trees``), weights that are saved as
variables (``module``), and a look over the graph before any work is done (``check``).
``backend.load_backend`` puts them together.

All modules but ``compat``, ``check`` and ``cli`` import TensorFlow, so they belong in a
child process of the family ``tensorflow-legacy``.
"""
