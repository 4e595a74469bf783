"""One file per algorithm; each imports core, the model and its siblings only, so each is a valid candidate."""
