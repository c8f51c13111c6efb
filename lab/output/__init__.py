"""All printing: `Report` is what a command answers, a `Face` is who reads it, a `Page` is what they can see."""

from lab.output.faces import Face, JsonFace, PeopleFace, QuietFace, Report
from lab.output.page import Page
from lab.output.table import Column, lay_out

__all__ = ["Column", "Face", "JsonFace", "Page", "PeopleFace", "QuietFace", "Report", "lay_out"]
