"""What `doctor` looks at. Each check says what it found, whether that is a fault, and what mends it."""
