"""From the command lines and specs of other tools to a recipe; no flag is dropped in silence."""
