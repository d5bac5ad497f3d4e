"""The backward pass: what is to be done (plan), emitted as ONNX nodes, put together into one model."""
