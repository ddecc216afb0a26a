"""Evidence that bits are right: digests, seeded networks, the published hashes, goldens."""
