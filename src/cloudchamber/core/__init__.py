"""The spine every problem module stands on; it knows no problem itself."""
