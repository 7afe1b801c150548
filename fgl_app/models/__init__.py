"""Building and loading models: classifiers and text-to-image pipelines."""
