"""Videos to representations, and the store that keeps them."""
