"""`lab report`: a static site and a Markdown notebook of a home, in which every number leads back to its row.

Sections (`lab.report.sections`) make a document of typed words (`doc`): plain text may hold no digit, and a number can
only be said as a `Number` of a row. Rows that are cited go into a `Book`, which knows on which page each will stand.
`html` and `notebook` render; `check` reads what was rendered, by itself, and refuses a loose number, a link that leads
nowhere, and a page that a keyboard or a screen reader cannot use.
"""
