"""One HTML page of what runs found: tables, confusion, mistakes, a map of the videos, and small previews of them."""
