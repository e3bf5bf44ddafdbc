"""The ledger: one line per execution, and the metrics of all executions."""
