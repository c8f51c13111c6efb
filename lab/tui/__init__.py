"""`lab top`: the screen that people keep open. Textual is loaded by this room alone.

facts     what was read, as frozen dataclasses           reading, looking, feed   who reads it, in a thread
model     facts -> rows, header (pure)                   spans, plot, columns, panes   rows -> painted text (pure)
grid, painted, detail, dialogs, logview, app   the Textual side   requests, actions   what keys ask for
"""
