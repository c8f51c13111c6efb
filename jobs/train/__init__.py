"""The training of the postfilter: quantisation-aware, averaged, resumed exactly, left alone for days."""
