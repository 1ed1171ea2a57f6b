"""From a row of a suite to trained weights."""
