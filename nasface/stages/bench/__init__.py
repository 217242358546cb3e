"""Speed and memory of networks in each runtime, from uint8 crops to landmarks."""
