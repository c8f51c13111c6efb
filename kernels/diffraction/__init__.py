"""Ptychography: far-field forward model, dose, grouping, reconstruction and how good it is."""
