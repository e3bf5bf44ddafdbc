"""Decides when an attempt may be sent, by budgets, rate limits and concurrency, and what it has cost."""
