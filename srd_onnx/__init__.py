"""Sharing-ratio explanations of exported ONNX models."""
