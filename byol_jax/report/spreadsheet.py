"""Text for the cells of CSV files, which people open in spreadsheets."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would calculate begins with


def cell(text: str) -> str:
    """The text; an apostrophe before what a spreadsheet would take for a formula.

    >>> cell("=cmd()"), cell("cat.jpg")
    ("'=cmd()", 'cat.jpg')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text
