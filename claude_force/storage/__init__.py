"""Files: those of the project, read without leaving it, and those of the package, written for their owner alone."""
