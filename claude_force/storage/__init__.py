"""File access: reads of the project that stay inside it, and private files of the package."""
