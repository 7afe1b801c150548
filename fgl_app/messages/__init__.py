"""What server and clients exchange: each record's encoder, decoder and rules side by side."""
