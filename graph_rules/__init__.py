"""What each ONNX operator does to relevance: one file per family."""
