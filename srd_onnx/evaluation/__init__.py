"""Methods against each other: all metrics on all images, kept number by number, ranked."""
