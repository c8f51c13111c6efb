"""What is claimed of speed, measured as ratios against named peers in the same run."""
