"""Where things stand on the screen, and the colours of what Textual draws; tables are painted by themes.py."""

SHEET = """
Screen { background: $background; color: $lab-text; layout: vertical; overflow: hidden; }
#header, #footer, #log-footer { height: 1; }
#lanes { height: 3; }
#main { height: 1fr; layout: vertical; }
#jobs { height: 1fr; width: 1fr; }
#detail { height: 9; width: 1fr; }
#log { height: 1fr; }
#filter { height: 1; border: none; padding: 0 1; background: $lab-surface; color: $lab-text; }
#small { display: none; }

.small #header, .small #lanes, .small #main, .small #footer, .small #filter { display: none; }
.small #small { display: block; height: 1fr; }

.wide #main { layout: horizontal; }
.wide #jobs { width: 2fr; }
.wide #detail { width: 1fr; border-left: solid $lab-line; }
.wide #lanes { margin-bottom: 1; }

Ask, AskReason, Help { align: center middle; background: $background 60%; }
.dialog {
    width: auto; max-width: 90%; min-width: 40; height: auto; padding: 1 2;
    background: $lab-surface; color: $lab-text; border: round $lab-accent;
}
.help { padding: 0 2; max-height: 100%; }
.dialog Static { width: auto; max-width: 100%; }
.about { color: $lab-dim; margin-top: 1; }
.buttons { height: 1; width: auto; margin-top: 1; }
.buttons Button { margin-right: 3; background: $lab-surface; color: $lab-text; }
.buttons Button:focus { background: $lab-cursor; text-style: bold; }
.dialog Input { width: 60; max-width: 100%; margin-top: 1; background: $background; color: $lab-text; }
"""
