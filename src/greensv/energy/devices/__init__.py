"""What devices do while energy is used: utilisation, clocks, temperature; and the phases of training steps."""
