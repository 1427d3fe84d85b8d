"""Dataset loaders: raw arrays from the first source that answers."""
