"""What a caller may ask and do, one function each, whoever asks: the HTTP edge, pages, the command line through them."""
