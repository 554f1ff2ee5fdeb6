"""One small file per Python contender; the Go and Rust ones have folders of their own."""
