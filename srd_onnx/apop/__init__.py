"""APOP, activation-pattern-only prediction: a network run on one input under the pattern of another."""
