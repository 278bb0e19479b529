"""How a method is applied: to networks in memory, or streamed from file to file."""
