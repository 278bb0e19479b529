"""What tensors are called: by wrappers, by other libraries, and by a network that has one under several names."""
