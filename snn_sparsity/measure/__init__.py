"""What is measured on a network: operations, gradients, zeros and where they come from."""
