"""Speaker verification: networks, corpora, features, training, embeddings, scores. Knows neither trials nor joules."""
