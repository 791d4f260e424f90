"""What things cost: seconds, memory, and how far from the machine's limit."""
