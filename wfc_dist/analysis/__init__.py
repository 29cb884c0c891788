"""The measures of `wfc analyze`: do the paper's mechanisms hold in a run? They are pure functions of factors or entries."""
