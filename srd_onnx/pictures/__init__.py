"""Pictures for people: overlays, strips, contact sheets."""
