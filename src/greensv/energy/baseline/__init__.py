"""What energies are compared with: the machine at rest, and an external meter."""
