"""Building, loading and saving of models: classifiers, diffusion models and text-to-image pipelines."""
