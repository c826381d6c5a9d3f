"""What is learned: agents, the networks that they are made of, and the occupants of their slots."""
