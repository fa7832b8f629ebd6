"""Names in files cannot steer the terminal: escapes are shown, never sent."""

import io

import pytest
from rich.table import Table

from edgeseg.cli import console

EVIL = "net\x1b]52;c;aGk=\x07\x9b31m\u202e"


@pytest.mark.parametrize("make", [console.stdout, console.stderr])
def test_a_table_sends_no_escape_of_a_file(make: object) -> None:
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    out = make()  # type: ignore[operator]
    out.file = io.StringIO()
    out.print(EVIL)
    out.print(table)

    text = out.file.getvalue()
    assert not set(text) & set("\x1b\x07\x9b\u202e")
    assert text.count("\\x1b") >= 4


def test_ordinary_text_stays_as_it_is() -> None:
    assert console.printable("Straße 1\n\t馬") == "Straße 1\n\t馬"
