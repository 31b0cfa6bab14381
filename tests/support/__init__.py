"""What several tests share: small data sets, odd files, servers and processes."""
