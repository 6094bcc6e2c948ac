"""Everything a caller can ask or do, one function each. The HTTP edge calls them; the command line uses HTTP."""
