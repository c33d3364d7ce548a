"""What is trained next: promotion through rungs, as pure functions of the history."""
