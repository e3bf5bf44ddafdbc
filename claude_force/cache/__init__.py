"""The parts of ResponseCache: request keys, signed entries, the layers in memory and on disk."""
