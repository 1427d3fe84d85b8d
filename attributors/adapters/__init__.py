"""Attributors of other libraries, run as they are, with their signs and their λ translated into ours."""
