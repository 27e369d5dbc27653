"""The documents of an audit, read back from what is written and drawn."""

import base64
import copy
import html
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from snn_sparsity.documents import page
from snn_sparsity.documents.blocks import Bullets, Card, Cell, Heading, Link, Picture, Table, words
from snn_sparsity.figures.drawing import BLUE, ORANGE
from snn_sparsity.report.audit import audit_html, audit_markdown, audit_table
from snn_sparsity.report.audit_figures import accuracies, broken_samples, eps_sweep
from snn_sparsity.report.audit_rows import ATTACKS, alone, attack_rows, between, cautions, judged, setting_rows

SCRIPT = "<script>alert('x')</script>"
CLEAN = [True, True, True, False]


PNG = page._png


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    # Pictures cost a second each, and most tests look at the text.
    monkeypatch.setattr(page, "_png", lambda figure: b"")


@pytest.fixture
def pictures(monkeypatch):
    monkeypatch.setattr(page, "_png", PNG)


def outcome(name, group, fooled, **more):
    attacked = sum(answer is not None for answer in fooled)
    return {
        "name": name, "group": group, "attack": f"{name}()", "status": "done", "why": "", "fooled": fooled, "forwards": 8 * attacked,
        "backwards": 7 * attacked, "seconds": 1.25, "zero_gradient_start": 0, "zero_gradient": 1, "silent": 0, "still_improving": 0.0,
        "moved": 0.9, "largest_perturbation": 0.03, "not_finite": 0, **more,
    }  # fmt: skip


def protocol(space="image", batch_norm="eval"):
    attacks = [
        outcome("pgd7", "claim", [True, False, False, None]),
        outcome("apgd", "standard", [True, False, False, None]),
        outcome("ties", "pool", [None, True, False, None]),
        outcome("hop", "blackbox", [None] * 4, status="skipped", why="foolbox is missing"),
        outcome("eps_16", "sweep", [True, True, True, None]),
    ]
    sweep = [{"eps": 16 / 255, "accuracy": 0.0}, {"eps": 0.0, "accuracy": 0.75}, {"eps": 8 / 255, "accuracy": 0.25}]
    return {"space": space, "batch_norm": batch_norm, "attacks": attacks, "harness": {}, "diagnostics": {"eps_sweep": sweep}}


def share(value):
    return {"value": value, "low": max(0.0, value - 0.125), "high": min(1.0, value + 0.125), "samples": 4}


def check(number):
    status = {7: "fail", 9: "warn", 18: "vote", 15: "not run"}.get(number, "pass")
    return {"id": f"V{number}", "title": f"title {number}", "status": status, "starred": 16 <= number <= 19, "found": f"found {number}",
            "wanted": f"wanted {number}", "remedy": f"remedy {number}"}  # fmt: skip


def verdict(word="OBFUSCATED", sentence="the gradients are masked"):
    return {
        "verdicts": [word, "UNDER-ATTACKED"], "sentence": sentence, "chance": 0.5, "weak_points": 0.0, "masked_points": 25.0,
        "accuracy": {"clean": share(0.75), "claim": share(0.5), "standard": share(0.5), "worst": share(0.25)},
        "masked_share": 0.5, "p_value": 0.0123, "checks": [check(number) for number in range(1, 27)],
        "explains_most": {"group": "pool", "attack": "ties", "samples": 1, "alone": 1}, "remarks": ["crafted elsewhere"],
    }  # fmt: skip


def sample(**more):
    chosen = {"checkpoint": "runs/demo/last.ckpt", "budget": "quick", "samples": 4, "seed": 1, "eps": 8 / 255, "eps_levels": 8,
             "num_classes": 2, "class_names": ["cat", "dog"], "split": "test", "network": "Tiny()", "packages": {"torch": "2.15"},
             "git_commit": None}  # fmt: skip
    return {
        "schema": 1, "settings": chosen | more, "labels": [0, 1, 0, 1], "clean": CLEAN,
        # Spikes first: the pages must put pixels in front.
        "protocols": {"paper": protocol("spikes", "batch"), "image": protocol()},
        "verdicts": {"paper": verdict("INVALID", "read nothing into it"), "image": verdict()},
        "not_run": [{"what": "second checkpoint", "why": "none was given"}], "seconds": 61.24, "complete": True,
    }  # fmt: skip


class Reader(HTMLParser):
    """What is in a page: tags in balance, tables as lists of rows, text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.tags, self.text, self.sources = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def table(self, first):
        """The table whose header begins so."""
        return [table for table in self.tables if table[0][: len(first)] == first]


def cells(line):
    """Split a line of a Markdown table as a reader of Markdown would: a bar inside a cell has a backslash before it."""
    inner = line.removeprefix("| ").removesuffix(" |")
    return [html.unescape(re.sub(r"\\(.)", r"\1", cell)) for cell in inner.split(" | ")]


def drawn(line):
    return [list(np.round(line.get_xdata(), 6)), list(np.round(line.get_ydata(), 6))]


def lines(axes, gid):
    return [drawn(line) for line in axes.get_lines() if line.get_gid() == gid]


def table(header, rows, numbers=()):
    return Table("t", header, [words(row) for row in rows], numbers)


def picture(figure, caption="C"):
    return Picture("p", lambda: figure, caption)


def test_a_page_holds_its_parts_in_order():
    text = page.html("T", [Heading("H"), "P", Bullets(["B"]), Card("L", "C", "S"), table(["h"], [["c"]])])
    assert [part for part in Reader(text).text if part.strip()] == ["T", "T", "H", "P", "B", "L", "C", "S", "h", "c"]
    assert text.startswith("<!DOCTYPE html>")


def test_a_page_needs_nothing_else():
    reader = Reader(page.html("T", [picture(Figure(figsize=(1, 1)))]))
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert [source.split(",")[0] for source in reader.sources] == ["data:image/png;base64"]


def test_a_page_is_light_or_dark_and_fits_a_telephone():
    text = page.html("T", [table(["h"], [["c"]])])
    assert "@media (prefers-color-scheme: dark)" in text
    assert '<meta name="viewport" content="width=device-width' in text
    assert '<div class="table"' in text
    assert ".table { overflow-x: auto" in text


@pytest.mark.parametrize("write", [page.html, page.markdown])
@pytest.mark.parametrize(
    "block",
    [
        SCRIPT, Heading(SCRIPT, 3, SCRIPT), Bullets([SCRIPT]), Card(SCRIPT, SCRIPT, SCRIPT), Link(SCRIPT, '"><script>'),
        table([SCRIPT], [[SCRIPT]]), Table("t", ["h"], [[Cell("x", tone='"><script>', links=(Link(SCRIPT, "#a"),))]]),
        picture(Figure(figsize=(1, 1)), SCRIPT + '">'),
    ],
    ids=lambda block: type(block).__name__,
)  # fmt: skip
def test_every_text_is_escaped(write, block):
    written = write(SCRIPT, [block])
    assert "<script" not in written
    assert "&lt;script&gt;" in written


def test_a_link_cannot_leave_its_attribute():
    reader = Reader(page.html("T", [Link("a & b", 'x" onclick="evil')]))
    assert reader.sources == ['x" onclick="evil']
    assert "a & b" in reader.text
    assert page.markdown("T", [Link("run", "a b/<c>%.json")]).endswith("\n[run](<a b/%3Cc%3E%25.json>)\n")


def test_names_that_utf8_cannot_hold_are_shown_with_a_mark():
    assert b"<p>a?b</p>" in page.html("T", ["a\udc80b"]).encode()
    assert page.markdown("T", ["a\udc80b"]).encode().endswith(b"\na?b\n")


def test_columns_of_numbers_are_flush_right_in_both_kinds_of_table():
    numbered = table(["n", "x", "y"], [["a", "12.5 %", "1e-05"], ["1", "-", "3"]], numbers=("x", "y"))
    assert page.html("T", [numbered]).count('class="number"') == 6
    assert page.markdown("T", [numbered]).splitlines()[3] == "|---|--:|--:|"
    assert page.markdown("T", [table(["n"], [])]) == "# T\n\n| n |\n|---|\n"


def test_cells_lead_somewhere_and_are_seen_at_a_glance():
    block = Table("t", ["run"], [[Cell("[R1] [R2]", tone="bad", links=(Link("R1", "#R1"), Link("R2", "#R2")))]])
    assert '<td class="bad"><a href="#R1">R1</a> <a href="#R2">R2</a></td>' in page.html("T", [block])
    assert "| [R1](#R1) [R2](#R2) |" in page.markdown("T", [block])


def test_a_row_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="2 columns and a row of 1 cells"):
        table(["a", "b"], [["1"]])
    with pytest.raises(ValueError, match="row of 2"):
        table(["a"], [["1"], ["1", "2"]])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126)), min_size=2, max_size=2), max_size=3))
def test_a_markdown_table_reads_back_as_it_was(rows):
    rows = [[" ".join(cell.split()) or "x" for cell in row] for row in rows]
    written = page.markdown("T", [table(["h", "i"], rows)]).splitlines()[4:]
    assert [cells(line) for line in written] == rows


@pytest.mark.parametrize(
    "text", ["# no heading", "- no item", "1. no item", "*no emphasis*", "_no emphasis_", "`no code`", "[no](link)", "~~no~~"]
)
def test_markdown_text_begins_no_markup(text):
    written = page.markdown("T", [text]).splitlines()[-1]
    assert written != text
    assert re.sub(r"\\(.)", r"\1", written) == text


@pytest.mark.usefixtures("pictures")
def test_a_picture_is_the_same_bytes_each_time_and_shows_its_figure():
    def draw():
        figure = Figure(figsize=(2, 1), dpi=50, facecolor="red")
        return page.html("T", [Picture("p", lambda: figure, "C")])

    assert draw() == draw()
    shown = Image.open(io.BytesIO(base64.b64decode(re.search('base64,([^"]*)', draw())[1])))
    assert (shown.size, shown.convert("RGB").getpixel((1, 1)), shown.info) == ((100, 50), (255, 0, 0), {})


def test_attack_rows_by_hand():
    [case] = judged([sample()])["image"]
    rows = [dict(zip(ATTACKS, row, strict=True)) for row in attack_rows(case)]
    assert rows[0] == {
        "group": "claim", "attack": "pgd7", "status": "done", "attacked": "3", "broke": "1", "seconds": "1.2",
        # Two of four, Wilson: (2 + z^2/2 +- z sqrt(1 + z^2/4)) / (4 + z^2), z = 1.96.
        "accuracy alone": "50.0 % (15.0 to 85.0 %)", "passes / image": "8 + 7", "no gradient": "0, 1", "settings": "pgd7()",
    }  # fmt: skip
    assert [rows[2][column] for column in ("attacked", "broke", "accuracy alone")] == ["2", "1", "-"]
    assert [rows[3][column] for column in ("status", "attacked", "passes / image", "settings")] == [
        "skipped",
        "0",
        "-",
        "foolbox is missing; hop()",
    ]


def test_accuracy_alone_counts_samples_that_are_wrong_anyway_as_broken():
    assert alone(outcome("a", "claim", [False, False, False, False]), CLEAN)[0] == 0.75
    assert alone(outcome("a", "claim", [None, False, False, False]), CLEAN) is None
    assert alone(outcome("a", "claim", [False] * 4, status="failed"), CLEAN) is None


def test_what_lies_between_the_accuracies():
    assert between(verdict()) == [
        "from the attack under audit to the standard attacks: 0.0 points",
        "from the standard attacks to all attacks: 25.0 points (50.0 % of the standard accuracy, exact McNemar p = 0.012)",
        "the group that explains most is pool: without it 1 more samples would stay right, of which ties broke 1",
    ]
    assert between(verdict() | dict.fromkeys(("weak_points", "masked_points", "masked_share", "p_value", "explains_most"))) == []


def test_settings_are_listed_with_what_is_inside_them():
    rows = dict(setting_rows([sample()]))
    assert (rows["packages.torch"], rows["class_names"], rows["eps"], rows["git_commit"], rows["seconds"]) == (
        "2.15", "cat, dog", "0.031373", "-", "61.2",
    )  # fmt: skip
    assert {name: both for name, *both in setting_rows([sample(), sample(extra=1)])}["extra"] == ["-", "1"]


@pytest.mark.parametrize("write", [audit_html, audit_markdown])
def test_verdicts_come_first_and_pixels_in_front(write):
    text = write([sample()])
    places = [
        text.index(part) for part in ("the gradients are masked", "read nothing into it", "Accuracies", "Checks", "Attacks", "Settings")
    ]
    assert places == sorted(places)
    assert "INVALID and UNDER-ATTACKED" in text


def test_the_page_shows_all_accuracies_with_their_intervals():
    [table] = Reader(audit_html([sample()])).table(["protocol"])
    assert table == [
        ["protocol", "no attack", "attack under audit", "standard attacks", "all attacks", "chance", "samples"],
        [
            "image",
            "75.0 % (62.5 to 87.5 %)",
            "50.0 % (37.5 to 62.5 %)",
            "50.0 % (37.5 to 62.5 %)",
            "25.0 % (12.5 to 37.5 %)",
            "50.0 %",
            "4",
        ],
        [
            "paper",
            "75.0 % (62.5 to 87.5 %)",
            "50.0 % (37.5 to 62.5 %)",
            "50.0 % (37.5 to 62.5 %)",
            "25.0 % (12.5 to 37.5 %)",
            "50.0 %",
            "4",
        ],
    ]


def test_what_was_not_measured_is_a_gap():
    audit = sample()
    audit["verdicts"]["image"] |= {"chance": None, "accuracy": {"clean": share(0.75)}}
    [table] = Reader(audit_html([audit])).table(["protocol"])
    assert table[1][2:6] == ["-"] * 4
    assert audit_table(audit).splitlines()[1].split() == ["image", "75.0", "%", "(62.5", "to", "87.5", "%)", "-", "-", "-", "-", "4"]


def test_every_check_has_its_row_in_every_protocol():
    image, paper = Reader(audit_html([sample()])).table(["check"])
    assert image == paper
    assert [row[0].rstrip("*") for row in image[1:]] == [f"V{number}" for number in range(1, 27)]
    assert [row[0] for row in image if row[0].endswith("*")] == ["V16*", "V17*", "V18*", "V19*"]
    assert image[7] == ["V7", "title 7", "fail", "found 7", "wanted 7", "remedy 7"]
    assert [row[0] for row in image[1:] if row[5] != "-"] == ["V7", "V9", "V15", "V18*"]


def test_the_page_and_its_twin_hold_the_same_tables():
    for audits in ([sample()], [sample(), sample(budget="full")]):
        written = [line for line in audit_markdown(audits).splitlines() if line.startswith("| ")]
        assert [cells(line) for line in written] == [row for table in Reader(audit_html(audits)).tables for row in table]


def test_remarks_and_what_did_not_run_are_said():
    text = " ".join(Reader(audit_html([sample()])).text)
    assert text.count("crafted elsewhere") == 2
    assert Reader(audit_html([sample()])).table(["what"]) == [[["what", "why"], ["second checkpoint", "none was given"]]]
    assert "Nothing was left out." in audit_html([sample() | {"not_run": []}])


@pytest.mark.parametrize("write", [audit_html, audit_markdown])
def test_an_incomplete_audit_says_so_at_the_top(write):
    text = write([sample() | {"complete": False}])
    assert text.index("INCOMPLETE") < text.index("OBFUSCATED")
    assert "INCOMPLETE" not in write([sample()])
    assert "INCOMPLETE" in audit_table(sample() | {"complete": False})


@pytest.mark.parametrize("write", [lambda audit: audit_html([audit]), lambda audit: audit_markdown([audit, audit])])
def test_names_from_outside_are_escaped(write):
    audit = sample(checkpoint=SCRIPT, class_names=[SCRIPT], network=SCRIPT, packages={SCRIPT: SCRIPT})
    audit["protocols"] = {f"{SCRIPT}{name}": each for name, each in audit["protocols"].items()}
    audit["verdicts"] = {f"{SCRIPT}{name}": each | {"sentence": SCRIPT, "remarks": [SCRIPT]} for name, each in audit["verdicts"].items()}
    audit["protocols"][f"{SCRIPT}image"]["attacks"][0] |= {"name": SCRIPT, "attack": SCRIPT, "why": SCRIPT}
    audit["not_run"] = [{"what": SCRIPT, "why": SCRIPT}]
    written = write(audit)
    assert "<script" not in written
    assert written.count("&lt;script&gt;") > 15


@pytest.mark.usefixtures("pictures")
def test_dollars_in_names_are_no_formula():
    audit = sample()
    audit["protocols"]["image"]["attacks"][0]["name"] = r"$\frac{a$"
    figure = broken_samples(judged([audit])["image"])
    page.html("T", [picture(figure)])
    assert figure.axes[0].get_yticklabels()[1].get_text() == r"$\frac{a$"


@pytest.mark.usefixtures("pictures")
def test_the_same_audit_gives_the_same_bytes_and_is_not_changed():
    audit = sample()
    audit["protocols"] = {"image": protocol() | {"diagnostics": {}}}
    before = copy.deepcopy(audit)
    assert audit_html([audit]) == audit_html([audit])
    assert audit == before


def test_audits_side_by_side_are_told_apart_by_letters():
    reader = Reader(audit_html([sample(checkpoint="first"), sample(checkpoint="second")]))
    assert {"A: first", "B: second"} <= set(reader.text)
    assert [row[:2] for row in reader.table(["audit", "protocol"])[0][1:]] == [
        ["A", "image"],
        ["B", "image"],
        ["A", "paper"],
        ["B", "paper"],
    ]
    assert reader.table(["check"])[0][0] == ["check", "what it asks", "A status", "A found", "B status", "B found", "wanted", "remedy"]
    assert ["checkpoint", "first", "second"] in reader.table(["setting"])[0]
    assert len(reader.table(["group"])) == 4


def test_a_protocol_that_one_audit_lacks_is_shown_for_the_other():
    other = sample()
    del other["protocols"]["paper"]
    assert {name: [case.mark for case in same] for name, same in judged([sample(), other]).items()} == {"image": ["A", "B"], "paper": ["A"]}
    audit_html([sample(), other])


def test_audits_that_did_not_do_the_same_are_not_compared_silently():
    assert cautions([sample(), sample(checkpoint="other")]) == []
    [(who, what, why)] = cautions([sample(), sample(budget="full", eps=0.1) | {"labels": [1, 1, 1, 1]}])
    assert (who, what, why) == ("all audits", "NOT LIKE FOR LIKE", "The audits differ in budget, eps, labels of the samples.")


def test_the_printed_table_ends_with_a_verdict_for_each_protocol():
    printed = audit_table(sample()).splitlines()
    assert printed[-2:] == [
        "image: OBFUSCATED and UNDER-ATTACKED: the gradients are masked",
        "paper: INVALID and UNDER-ATTACKED: read nothing into it",
    ]
    assert "did not run: second checkpoint: none was given" in printed


def test_the_printed_table_shows_attacks_that_count_and_checks_that_did_not_pass():
    printed = audit_table(sample()).splitlines()
    start = printed.index("image: pixels, BatchNorm eval")
    assert [line.split()[1] for line in printed[start + 1 : start + 6]] == ["attack", "pgd7", "apgd", "ties", "hop"]
    assert printed[start + 6 : start + 10] == [
        "V7   fail    title 7: found 7",
        "V9   warn    title 9: found 9",
        "V15  not run title 15: found 15",
        "V18* vote    title 18: found 18",
    ]
    assert printed[start + 10] == ""


def test_accuracies_are_drawn_where_they_are():
    image, paper = accuracies(judged([sample()])).axes
    assert [image.get_title(loc="left"), paper.get_title(loc="left")] == [
        "image: pixels, BatchNorm eval",
        "paper: encoded spikes, BatchNorm batch",
    ]
    assert lines(image, "image") == [[[75, 50, 50, 25], [0, 1, 2, 3]]]
    assert lines(image, "interval")[0] == [[62.5, 87.5], [0, 0]]
    assert [label.get_text() for label in image.get_yticklabels()] == ["no attack", "attack under audit", "standard attacks", "all attacks"]
    assert image.yaxis_inverted()


def test_audits_are_drawn_in_colours_and_rows_of_their_own():
    figure = accuracies(judged([sample(), sample()]))
    first, second = (line for line in figure.axes[0].get_lines() if line.get_gid() == "image")
    assert [first.get_color(), second.get_color(), first.get_marker() != second.get_marker()] == [BLUE, ORANGE, True]
    assert drawn(first)[1] == [-0.2, 0.8, 1.8, 2.8]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B", "chance"]


def test_the_sweep_is_drawn_in_order_of_eps():
    image, _ = eps_sweep(judged([sample()])).axes
    assert lines(image, "image") == [[[0, 8, 16], [75, 25, 0]]]
    band = image.collections[0].get_paths()[0].vertices
    # Wilson's upper end of 0 of 4: z^2 / (4 + z^2).
    assert band[:, 1].max() == pytest.approx(95.44, abs=0.01)
    assert any(y == pytest.approx(48.99, abs=0.01) for x, y in band if x == pytest.approx(16))


def test_bars_are_as_long_as_what_was_attacked_and_broken():
    [axes] = broken_samples(judged([sample()])["image"]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["claim", "pgd7", "standard", "apgd", "pool", "ties"]
    bars = {(bar.get_facecolor() == to_rgba(BLUE), round(bar.get_y() + bar.get_height() / 2)): bar.get_width() for bar in axes.patches}
    assert [text.get_text() for text in axes.texts] == ["1 of 3", "1 of 3", "1 of 2"]
    assert bars == {(False, 1): 3, (False, 3): 3, (False, 5): 2, (True, 1): 1, (True, 3): 1, (True, 5): 1}


def test_without_a_sweep_or_an_attack_there_is_no_figure():
    audit = sample()
    for each in audit["protocols"].values():
        each |= {"attacks": [], "diagnostics": {}}
    cases = judged([audit])
    assert (eps_sweep(cases), broken_samples(cases["image"])) == (None, None)
    assert Reader(audit_html([audit])).tags.count("img") == 1
    assert Reader(audit_html([sample()])).tags.count("img") == 4
