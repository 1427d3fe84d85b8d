"""What everything else stands on: errors, digests, documents, tensors, paths, scores on disk, progress."""
