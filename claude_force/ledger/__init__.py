"""The ledger: a line for each execution, and the figures that these lines add up to."""
