"""The book of how far each candidate's training has come."""
