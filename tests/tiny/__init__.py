"""A whole search in a second: a dozen synthetic speakers, a network of a few thousand parameters, a known power."""
