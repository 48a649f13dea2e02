"""How files are found, fetched, decoded and cached. May import the core."""
