"""Everything that touches ONNX Runtime: sessions, providers, its errors."""
