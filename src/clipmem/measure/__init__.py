"""What models can do and where they memorize: utility, retrieval, Déjà Vu, towers, layers, units."""
