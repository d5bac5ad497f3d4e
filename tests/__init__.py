"""Tests of srd-onnx."""
