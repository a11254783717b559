"""What ships: the folder, its manifest, its digests."""
