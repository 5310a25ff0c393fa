"""TensorFlow to ONNX by tf2onnx, with the large weights kept out of its way.

tf2onnx copies a graph, weights and all, for every pass of its optimiser, and never gives
memory back: 7 GB for the 100 MB of a ResNet-50. Here a large weight is an *input* of the
graph from the moment it is frozen (``freeze``), so that TensorFlow's and tf2onnx's passes
carry its name and shape alone. No pass can look at its value, fold it or merge it with its
equal, so nothing can go wrong by it. At the end each such input becomes an initializer:
``fold`` notes what the graph does to it (transposes, reshapes), ``fuse`` what a following
scale does to it, and ``write`` reads one weight at a time, does that, and streams it into
the file. No more than one weight exists twice.
"""
