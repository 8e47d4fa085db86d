"""What the e2e tests share."""
