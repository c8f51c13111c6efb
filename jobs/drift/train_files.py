"""Names of the files that a drift training leaves, for those who read them."""

MODEL, CONFIG, ENCODER = "model.npz", "config.json", "encoder.npz"
