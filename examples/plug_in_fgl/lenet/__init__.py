"""LeNet on digits, federated."""
