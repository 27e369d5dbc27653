"""What a run leaves on disk: where it lies, files that are whole or not there, and its numbers read back."""
