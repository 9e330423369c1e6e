"""What was shown and what shoppers did with it: kept for a while, without images, vectors, words or names."""
