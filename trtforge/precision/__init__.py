"""Which tensor has which type and which scale."""
