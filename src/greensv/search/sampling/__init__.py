"""Which candidate is proposed."""
