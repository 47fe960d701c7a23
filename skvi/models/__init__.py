"""Models: what the papers say, and nothing about scikit-learn."""
