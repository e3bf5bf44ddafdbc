"""File access: safe reading of projects, private files, locks, signing, SQLite files, a worker thread."""
