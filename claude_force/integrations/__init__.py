"""Exports calls to other tools: JSON log lines, OpenTelemetry, Prometheus."""
