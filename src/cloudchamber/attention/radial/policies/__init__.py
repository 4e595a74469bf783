"""Band rules, one file each."""
