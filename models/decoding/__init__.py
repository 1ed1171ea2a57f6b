"""Writing byte by byte: caches, compiled steps, sampling, and scoring from shared prefixes."""
