"""What attributions are used for: choosing data, flipping predictions, finding wrong labels."""
