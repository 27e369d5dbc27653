"""What a reader sees of an audit."""
