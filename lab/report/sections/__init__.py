"""The sections of the report, one module each: from what was read to pages of typed words."""
