"""Loading, partitioning and saving of image datasets."""
