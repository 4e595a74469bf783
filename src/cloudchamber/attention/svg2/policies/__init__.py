"""Rules for keeping pairs of clusters, one file each."""
