"""Generation: rows of text that are written together, token by token, each by its own experts."""
