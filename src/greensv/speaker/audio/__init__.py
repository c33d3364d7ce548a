"""Audio files: found, read, resampled, and kept as samples."""
