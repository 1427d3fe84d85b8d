"""The static site: records in, files out; never imports torch."""
