"""Executes one call: single flight, cache, retries, and the result that the caller gets."""
