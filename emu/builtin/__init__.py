"""What knows the built-in firmware: its policy and disks, its scenarios, and what its VM switches cost."""
