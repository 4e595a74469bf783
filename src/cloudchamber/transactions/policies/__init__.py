"""The policies of transaction scheduling, one file per algorithm."""
