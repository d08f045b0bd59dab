"""Tables as spreadsheets and people write them: quotes, line breaks and delimiters where no standard has
them.
"""

import csv
import io
import random

import pytest

from opensora.data.lists.tables import by_column, read_header, read_row, scan_rows


def rows(text: str, delimiter: str = ",") -> list[list[str]]:
    content = text.encode()
    found = list(scan_rows(io.BytesIO(content), delimiter))
    for row in found:  # every row is found again by its place
        assert read_row(content[row.offset : row.offset + row.length], delimiter) == row.cells
    return [[cell.value for cell in row.cells] for row in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a,a 5" pipe\nb,a 7" disc\n', [["a", 'a 5" pipe'], ["b", 'a 7" disc']]),
        ('a,"a 3" nail"\nb,x\n', [["a", 'a 3" nail'], ["b", "x"]]),
        ('a," 5 inch\nb,"x, y"\n', [["a", '" 5 inch'], ["b", "x, y"]]),
        ('a,"Big" house on\nb,"ok"\n', [["a", '"Big" house on'], ["b", "ok"]]),
        ('a,"no end\nb,x', [["a", '"no end'], ["b", "x"]]),
        ('a,"two\nlines ""q""" \nb,x', [["a", 'two\nlines "q"'], ["b", "x"]]),
        ("a,b\rc,d\r\re,f", [["a", "b"], ["c", "d"], ["e", "f"]]),
        ('a,"x\ry"\rb,z', [["a", "x\ry"], ["b", "z"]]),
        ("a,x\u2028y\x0bz\x0c\x1c\x1d\x1e\x85w\n", [["a", "x\u2028y\x0bz\x0c\x1c\x1d\x1e\x85w"]]),
        (f'a,"{"x" * 200_000}"\n', [["a", "x" * 200_000]]),
        (" , \n,,\n\na\n", [["a"]]),
    ],
)
def test_rows(text: str, expected: list[list[str]]) -> None:
    assert rows(text) == expected


def test_well_formed_tables_are_read_as_by_the_standard_library() -> None:
    rng = random.Random(0)
    for _ in range(500):
        data = [
            ["x" + "".join(rng.choice('a",; é\t') for _ in range(rng.randrange(9))) for _ in range(3)]
            for _ in range(4)
        ]
        out, delimiter = io.StringIO(), rng.choice(",;\t")
        quoting = rng.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
        csv.writer(out, delimiter=delimiter, quoting=quoting).writerows(data)
        assert rows(out.getvalue(), delimiter) == data


@pytest.mark.parametrize(
    ("suffix", "text", "columns", "delimiter"),
    [
        (".csv", "\ufeffpath, cap\r\n", ["path", "cap"], ","),
        (".csv", "path;cap\n", ["path", "cap"], ";"),
        (".csv", "path\tcap\n", ["path", "cap"], "\t"),
        (".tsv", "path\ta, b\n", ["path", "a, b"], "\t"),
        (".csv", "", [], ","),
    ],
)
def test_the_header_tells_the_delimiter(suffix: str, text: str, columns: list[str], delimiter: str) -> None:
    header = read_header(io.BytesIO(text.encode()), suffix)
    assert (header.columns, header.delimiter) == (columns, delimiter)


def test_commas_that_are_not_quoted_stay_in_the_last_text_or_are_a_fault() -> None:
    file = io.BytesIO(b'path,cap\na.mp4,a dog, a cat, running,\nb.mp4,"x, y",z\nc.mp4,one,,\n')
    header = read_header(file, ".csv")
    first, second, third = (row.cells for row in scan_rows(file, ","))
    assert by_column(first[:-1], header, ["cap"]) == {"path": "a.mp4", "cap": "a dog, a cat, running"}
    assert by_column(third, header) == {"path": "c.mp4", "cap": "one"}
    for cells, texts in ((first, []), (second, ["cap"]), (first, ["path"])):
        with pytest.raises(ValueError, match=r"cells and the header 2: put texts that hold ',' in double"):
            by_column(cells, header, texts)


@pytest.mark.parametrize(("line", "delimiter"), [("sep=;\r\n", ";"), ("SEP=,\n", ","), ("", ",")])
def test_a_line_that_states_the_delimiter_is_no_header(line: str, delimiter: str) -> None:
    file = io.BytesIO(f"{line}path{delimiter}cap\na.mp4{delimiter}x\n".encode())
    header = read_header(file, ".csv")
    assert (header.columns, header.delimiter) == (["path", "cap"], delimiter)
    assert [[cell.value for cell in row.cells] for row in scan_rows(file, delimiter)] == [["a.mp4", "x"]]
