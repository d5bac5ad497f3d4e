"""Looking inside a model: its layers, effective receptive fields, decisions layer by layer."""
