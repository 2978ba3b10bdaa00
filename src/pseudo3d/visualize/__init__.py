"""Pictures of features and results."""
