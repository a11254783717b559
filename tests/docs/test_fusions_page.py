"""docs/fusions.md: its tables are well formed, and their verdicts are those of the catalog."""

from documents import REPOSITORY

from trtforge.graph.catalog import OPTIONAL, PASSES

PAGE = (REPOSITORY / "docs" / "fusions.md").read_text(encoding="utf-8")


def tables() -> list[list[list[str]]]:
    """Return the tables as rows of cells, header and rule included."""
    found: list[list[list[str]]] = [[]]
    for line in PAGE.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_every_table_has_a_header_and_rows_as_wide_as_it() -> None:
    assert len(tables()) == 4
    for header, rule, *rows in tables():
        assert header[0] == "pass"
        assert set("".join(rule)) == {"-"}
        assert rows
        assert {len(row) for row in (rule, *rows)} == {len(header)}


def test_every_pass_is_in_the_catalog() -> None:
    named = {row[0] for table in tables() for row in table[2:]} - {"", "both"}
    assert not named - set(PASSES)
    assert not OPTIONAL - named - {"asymmetric-to-float"}, "an optional pass needs its figures"


def test_a_verdict_is_what_the_catalog_says() -> None:
    for header, _, *rows in tables():
        name = ""
        for row in rows:
            name = row[0] or name
            if header[-1] == "verdict" and name != "both":
                assert row[-1] == ("optional" if name in OPTIONAL else "default"), row
