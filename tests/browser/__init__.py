"""The page in a real browser: what opens it, and the picture of it in the README."""
