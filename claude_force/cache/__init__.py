"""Kept answers: what identifies one, how it is signed, and the two layers that hold it."""
