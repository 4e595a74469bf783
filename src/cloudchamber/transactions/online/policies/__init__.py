"""The policies of online transaction scheduling, one file per algorithm."""
