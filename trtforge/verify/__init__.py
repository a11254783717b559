"""Is it still the same function?"""
