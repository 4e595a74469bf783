"""Records of evidence: what ran, what came out, what that means for a claim, and whether it still stands."""
