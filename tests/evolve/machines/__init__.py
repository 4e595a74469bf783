"""A toy problem with a sound verifier, and with broken ones."""
