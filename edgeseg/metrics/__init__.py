"""Score label maps: confusion matrix, boundaries, and an engine's scores on labelled data."""
