"""Training networks that are calibrated from the start."""
