"""What tells other tools of the engine's work: JSON lines in a log, OpenTelemetry. Each one is a leaf."""
