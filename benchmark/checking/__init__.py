"""Is a file what it claims to be: records, bundles, cards, score matrices, plugins, entries."""
