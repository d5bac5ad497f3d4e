"""From photos and arrays to what a model takes."""
