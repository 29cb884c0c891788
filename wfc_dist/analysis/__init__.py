"""What `wfc analyze` does: do the paper's mechanisms hold in a run? Every measure is a pure function of factors or entries."""
