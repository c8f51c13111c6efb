"""The frames of a training: photographs or a video of the user's, through a real AV1 encoder, cached by content."""
