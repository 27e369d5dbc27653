"""The documents of an audit, read back from what is written."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from snn_sparsity import PGD
from snn_sparsity.audit.evidence import NotRun, read_audit
from snn_sparsity.audit.pages.documents import audit_html, audit_markdown, audit_table
from snn_sparsity.audit.pages.reference import reference
from snn_sparsity.audit.run import AuditResult
from tests.browser import Browser, executable
from tests.test_verdict import CLAIM, EVEN, LEFT, NATIVE, again, arm, attack, evidence

MASKED = evidence(CLAIM, NATIVE, again([], LEFT), arm(range(100, 150), LEFT))
HONEST = evidence(CLAIM, NATIVE, *EVEN)


@pytest.mark.parametrize("write", [audit_html, audit_markdown])
def test_the_sentence_comes_first(write):
    page = write([MASKED])
    sentence, word = (
        page.index("Do not quote 60.9 %: at most 41.4 % (106 of 256) survive."),
        page.index("MASKED:" if write is audit_markdown else "MASKED<"),
    )
    assert sentence < word
    assert audit_table(MASKED).startswith("Do not quote")


def test_severity_is_a_word_and_a_colour():
    assert re.search(r'class="answer bad"><span[^>]*>[^<]*</span><strong>MASKED', audit_html([MASKED]))
    assert re.search(r'class="answer good"><span[^>]*>[^<]*</span><strong>NO SIGN OF MASKING', audit_html([HONEST]))


def test_what_failed_is_open_and_what_passed_is_folded():
    page = audit_html([MASKED])
    folded = page.index("<details>")
    assert page.index("</span> V18:") < page.index("not run</span> V") < folded < page.index("V27 pass")
    assert page.count("<details>") + page.count("<details open>") == page.count("<details")


def test_a_chart_never_rises():
    stronger = evidence(attack("claim", range(140)), NATIVE, again([], LEFT), attack("radius", [3], eps=16 / 255))
    page = audit_html([stronger])
    widths = [float(width) for width in re.findall(r'class="bar"[^>]*width="([0-9.]+)"', page)]
    heights = [float(height) for height in re.findall(r'class="dot"[^>]*cy="([0-9.]+)"', page)]
    assert widths == sorted(widths, reverse=True)
    assert len(widths) == 4
    assert heights == sorted(heights)
    assert len(heights) == 3


def test_names_from_outside_are_escaped():
    name = "<script>alert(1)</script>"
    image = MASKED.protocols["image"]
    attacks = [replace(one, name=name, why=name) for one in image.attacks]
    protocols = {name: replace(image, what=name, attacks=attacks)}
    hostile = replace(MASKED, settings={"checkpoint": name, name: name}, not_run=[NotRun(what=name, why=name)], protocols=protocols)
    for written in (audit_html([hostile]), audit_html([hostile, hostile]), audit_markdown([hostile])):
        assert "<script" not in written
        assert "&lt;script&gt;" in written
    assert not re.search(r"https?:", audit_html([hostile])), "nothing is loaded from anywhere"


def test_the_browser_has_nothing_to_complain_about(tmp_path):
    if executable() is None:
        return  # what can be seen without a browser is tested above
    names = [replace(one, name="a_name_without_an_end" * 9, attack=repr(PGD(keep="last"))) for one in MASKED.protocols["image"].attacks]
    wide = replace(MASKED, settings={"weights_sha256": "f" * 64}, protocols={"image": replace(MASKED.protocols["image"], attacks=names)})
    (tmp_path / "audit.html").write_text(audit_html([wide, HONEST]))
    with Browser() as browser:
        for width in (1280, 390):
            for dark in (False, True):
                browser.open(tmp_path / "audit.html", width, dark)
                browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true), 1")
                assert browser.complaints() == []
                assert browser.evaluate("document.documentElement.scrollWidth") <= width, "the page itself never scrolls sideways"
                assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
                    "rgb(21, 25, 29)" if dark else "rgb(255, 255, 255)"
                )
                assert browser.evaluate("document.querySelector('h1').getBoundingClientRect().top") < 40, "the sentence comes first"
                last = "Array.from(document.querySelectorAll('.answer')).slice(0, 2).map(one => one.getBoundingClientRect().bottom)"
                assert max(browser.evaluate(last)) < 900, "both answers are seen without scrolling"
                small = "Math.min(...Array.from(document.querySelectorAll('svg text'), one => one.getBoundingClientRect().height))"
                assert browser.evaluate(small) >= 12, "what is written in a chart can be read"


def test_audits_that_differ_are_not_like_for_like():
    other = replace(HONEST, settings={"budget": "full"})
    assert "NOT LIKE FOR LIKE: the audits differ in budget" in audit_html([HONEST, other])
    assert "NOT LIKE" not in audit_html([HONEST, HONEST])
    flips = [replace(HONEST, settings={"budget": "full", "flips": number}) for number in (10, 1000)]
    assert "NOT LIKE FOR LIKE: the audits differ in flips" in audit_html(flips)
    images = [replace(HONEST, settings={"data": {"name": name, "test_sha256": name}}) for name in ("one", "other")]
    assert "NOT LIKE FOR LIKE: the audits differ in the images" in audit_html(images)
    assert "INCOMPLETE" in audit_html([replace(HONEST, complete=False)])


def test_the_same_evidence_gives_the_same_bytes():
    assert audit_html([MASKED, HONEST]) == audit_html([MASKED, HONEST])


def test_the_list_of_checks_in_the_documentation_is_current():
    assert reference() in (Path(__file__).parents[1] / "docs/audit.md").read_text()


def test_audits_that_were_committed_are_current():
    for path in (Path(__file__).parents[1] / "docs/audits").rglob("audit.json"):
        evidence = read_audit(path)
        again = f"judge it anew: snn-sparsity audit --judge {path}"
        assert json.loads(path.read_text()) == json.loads(json.dumps(AuditResult(evidence).to_json())), again
        assert (path.parent / "audit.html").read_text() == audit_html([evidence]), again
        assert (path.parent / "audit.md").read_text() == audit_markdown([evidence]), again
