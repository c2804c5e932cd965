import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest
from report_examples import WINNER, make_comparison, make_data, make_history, make_partition

from hf_biotune.report import write_report

TIMES = "\N{MULTIPLICATION SIGN}"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
VOID = {"meta", "wbr", "input", "img"}


class Page(HTMLParser):
    """Elements, attributes and table rows of a page; fails on elements that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows, self._open, self._cell = [], [], [], None
        self.text = ""
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self._open and {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data.replace("\xa0", " ")

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report"), make_data())


@pytest.fixture(scope="module")
def page(report):
    return Page(report.read_text(encoding="utf-8"))


def test_the_report_and_a_png_of_every_figure_are_written(report):
    assert report.name == "report.html"
    names = sorted(path.name for path in report.parent.iterdir())
    assert names == [
        "blocks.png",
        "comparison.png",
        "evolution.png",
        "individuals.png",
        "pareto.png",
        "report.html",
        "report.json",
    ]
    for path in report.parent.glob("*.png"):
        content = path.read_bytes()
        assert content.startswith(PNG_MAGIC)
        assert int.from_bytes(content[16:20], "big") == 1600


def test_the_page_asks_for_nothing_from_anywhere(report, page):
    text = report.read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert not page.all("link")
    targets = [
        attributes[key]
        for _, attributes in page.elements
        for key in ("src", "href", "xlink:href", "srcset", "data", "action")
        if key in attributes
    ]
    assert targets
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in targets)
    assert all("@import" not in text and f"url({q}" not in text for q in ("'", '"', "h", "/"))


def test_the_page_runs_its_own_script_and_no_other(report, page):
    assert page.all("script") == [{"type": "application/json", "id": "data"}, {}]
    text = report.read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.all("meta")[3]["content"]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:"
    )
    for word in ("eval(", "innerHTML", "fetch(", "XMLHttpRequest", "import("):
        assert word not in script
    assert not re.search(r"\son[a-z]+=", text)


def test_every_reference_inside_the_page_has_one_target(report, page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    text = report.read_text(encoding="utf-8")
    wanted = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"|labelledby="([^"]+)"', text))
    assert {name for groups in wanted for name in groups if name} <= set(ids)


def test_headings_descend_by_one_level_and_tables_have_scopes_and_captions(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels == [1, 2, 2, 2, 2, 2, 3, 3]
    assert len(page.all("caption")) == len(page.all("table")) == 5
    assert {attributes.get("scope") for attributes in page.all("th")} == {"row", "col"}
    regions = [a for _, a in page.elements if a.get("role") == "region"]
    assert all(region["tabindex"] == "0" for region in regions)


def test_each_figure_is_described_in_words_for_wide_and_narrow_screens(page):
    figures = page.all("svg")
    assert len(figures) == 10
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in figures)
    assert figures[8]["aria-label"] == (
        "Test scores by method: linear probe 0.768 ± 0.019 (95 %, n = 2); "
        "full fine-tuning 0.922 ± 0.013 (95 %, n = 2); "
        "BioTune 0.953 ± 0.025 (95 %, n = 2)."
    )


def test_ink_follows_the_theme_of_the_page(report):
    text = report.read_text(encoding="utf-8")
    figures = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--ink)" in figures
    assert "#1c2733" not in figures
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_the_winners_table_holds_every_block(page):
    assert page.rows[0] == ["Block", "Multiplier", "Learning rate", "Parameters", "Share"]
    assert page.rows[1] == ["stem", "frozen", "\N{EN DASH}", "928", "< 0.1 %"]
    assert page.rows[7] == ["stage5", f"{TIMES}8", "0.008", "2,026,348", "56.1 %"]
    assert page.rows[10] == ["Trained in total", "", "", "2,332,632", "64.6 %"]


def test_the_comparison_table_is_that_of_the_markdown(page):
    row = next(row for row in page.rows if row[0] == "BioTune")
    assert row[1] == "0.953 ± 0.025 (95 %, n = 2)"
    assert row[-1] == "12 min 10 s, 40.0 trainings"


def test_the_page_tells_where_the_winner_came_from_and_how_to_use_it(page):
    words = " ".join(page.text.split())
    assert "The winner is trial 29 of generation 2 (offspring)." in words
    assert "averages of each epoch in trained blocks, kept in frozen ones" in words
    assert "hf-biotune tune --model tf_efficientnet_lite0 --dataset mnist-200 --seed 0" in words
    assert "BioTuneModel.from_pretrained(base_model" in words


def test_nothing_that_a_stranger_named_becomes_markup(tmp_path):
    evil = "<script>alert('x')</script>"
    partition = make_partition({evil: 5, "$x^{$": 10, '"><img src=x>&amp;': 7, "名\x00\n😀": 9})
    history = make_history(partition)
    history["role"] = evil
    comparison = make_comparison()
    comparison.loc[0, "method"] = evil
    path = write_report(
        tmp_path,
        make_data(
            partition=partition,
            history=history,
            best_multipliers={evil: 1.0},
            comparison=comparison,
            title=evil,
            model_name=evil,
            dataset_name=evil,
            metric=evil,
            norm_statistics=evil,
            facts={evil: evil},
            command=evil,
            python="</code></pre>" + evil,
        ),
    )
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.all("script")) == 2
    assert not page.all("img")
    assert page.text.count(evil) >= 8
    assert any(row[0] == '"><img src=x>&amp;' for row in page.rows)


def test_a_report_without_comparison_has_no_such_section_and_no_stale_figure(tmp_path):
    write_report(tmp_path, make_data())
    path = write_report(tmp_path, make_data(comparison=None))
    assert not (tmp_path / "comparison.png").exists()
    assert "What it is worth" not in path.read_text(encoding="utf-8")
    assert (tmp_path / "evolution.png").exists()


def test_a_search_in_which_everything_failed_still_has_a_report(tmp_path):
    history = make_history(make_partition(), n_generations=1, size=3)
    history[["state", "score"]] = ["failed", math.nan]
    data = make_data(history=history, best_multipliers={}, comparison=None, facts={})
    page = Page(write_report(tmp_path, data).read_text(encoding="utf-8"))
    words = " ".join(page.text.replace("\xa0", " ").split())
    assert "BioTune trains 0 of 9 blocks (0 % of the parameters)." in words
    assert "3 individuals in 1 generation: 3 failed." in words


def test_an_empty_history_has_a_report_without_its_figures(tmp_path):
    history = make_history(make_partition()).iloc[:0]
    path = write_report(tmp_path, make_data(history=history))
    assert "No individual was evaluated." in path.read_text(encoding="utf-8")
    assert not (tmp_path / "evolution.png").exists()
    assert not (tmp_path / "individuals.png").exists()


def test_one_individual_with_one_block_has_a_report(tmp_path):
    partition = make_partition({"all": 7})
    history = make_history(partition, n_generations=1, size=1)
    data = make_data(partition=partition, history=history, best_multipliers={"all": 1.0})
    assert write_report(tmp_path, data).exists()


@pytest.mark.slow
def test_a_thousand_individuals_of_twenty_blocks_take_5_megabytes(tmp_path):
    partition = make_partition({f"encoder.layer.{i}": 10 ** (i % 5 + 3) for i in range(20)})
    history = make_history(partition, n_generations=25, size=40, n_folds=2)
    data = make_data(partition=partition, history=history)
    path = write_report(tmp_path, data)
    assert path.stat().st_size <= 5_000_000
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 8_000_000


def test_every_individual_has_a_row_that_sorts_by_numbers(tmp_path):
    history = make_history(make_partition(), winner=WINNER)
    history.loc[3, ["state", "score"]] = ["failed", math.nan]
    text = write_report(tmp_path, make_data(history=history)).read_text(encoding="utf-8")
    rows = re.findall(r'<tr id="individual-(\d+)" data-state="(\w+)" tabindex="-1">', text)
    assert [int(number) for number, _ in rows] == list(range(40))
    assert rows[3] == ("3", "failed")
    assert '<th scope="row" class="number" data-value="29">29</th>' in text
    assert '<td class="number" data-value="0.931">0.931</td>' in text
    assert '<td class="number" data-value="">\N{EN DASH}</td>' in text
    assert 'role="img" aria-label="4 of 9 blocks"' in text
    page = Page(text)
    assert ["complete", "trained to its end", "39", "585", "39.0", "3 min 54 s"] in page.rows


def script_data(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_what_is_pointed_at_lies_where_it_is_drawn(report):
    text = report.read_text(encoding="utf-8")
    data = script_data(report)
    assert len(data["individuals"]) == len(data["multipliers"]) == 40
    assert data["individuals"][29] == (
        "individual 29, generation 2 (offspring)\nscore 0.931, complete\n"
        "trains 64.6 % of the parameters"
    )
    boxes = data["figures"]["blocks"]["wide"]
    drawn = re.search(r'id="blocks-wide-block-6".*?<path d="M ([\d.]+) ([\d.]+)', text, re.DOTALL)
    left, bottom = float(drawn[1]), float(drawn[2])
    assert boxes[6][0] == pytest.approx(left, abs=0.11)
    assert boxes[6][1] + boxes[6][3] == pytest.approx(bottom, abs=0.11)
    assert data["figures"]["comparison"]["texts"][-1] == "BioTune, seed 1\n0.955"
    places = data["figures"]["evolution"]["wide"]
    used = re.search(r'id="evolution-wide-individuals-fold-0".*?</g>\s*</g>', text, re.DOTALL)[0]
    first = re.search(r'<use[^>]*x="([\d.]+)" y="([\d.]+)"', used)
    assert places[0] == pytest.approx([float(first[1]), float(first[2])], abs=0.11)


def test_the_same_data_give_the_same_files(tmp_path, report):
    write_report(tmp_path, make_data())
    for path in report.parent.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_report_needs_no_torch():
    code = (
        "import sys, hf_biotune.report as r; assert r.write_report\n"
        "assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_finalists_importances_and_lineage_are_shown_if_they_are_known(tmp_path):
    finalists = pd.DataFrame(
        {
            "trial": [29, 3],
            "scores": [[0.95, 0.96, 0.97], [0.9]],
            "trained_parameters": [2_332_632, 12_810],
            "in_contention": [True, False],
            "winner": [True, False],
        }
    )
    lineage = pd.DataFrame(
        {
            "trial": [29, 0],
            "generation": [2, 0],
            "role": ["exploit", "initial"],
            "start": ["", "linear probe"],
            "parents": [[0], []],
            "fold": [0, 0],
            "state": ["complete", "complete"],
            "seeds": [[684, 559, 629], [684]],
            "score": [0.96, 0.7],
        }
    )
    importances = pd.Series({"stage5": 0.7, "<b>": 0.3})
    front = pd.DataFrame(
        {
            "trial": [3, 29],
            "score": [0.9, 0.96],
            "seeds": [1, 3],
            "trainable_parameters": [12_810, 2_332_632],
            "trained_share": [0.0035, 0.6455],
            "seconds": [31.0, 71.2],
            "checkpoint_size": [51_240, 9_330_528],
            "blocks": [["head"], ["stage5"]],
            "knee": [True, False],
        }
    )
    data = make_data(finalists=finalists, lineage=lineage, importances=importances, front=front)
    page = Page(write_report(tmp_path, data).read_text(encoding="utf-8"))
    assert ["29", "0.960 ± 0.025 (95 %, n = 3)", "2,332,632", "winner"] in page.rows
    assert ["3", "0.900 (n = 1)", "12,810", "worse than the leader"] in page.rows
    dash = "\N{EN DASH}"
    assert ["29", "", "2", "exploit", "0", "0", "684, 559, 629", "0.960"] in page.rows
    assert ["0", "", "0", "initial: linear probe", dash, "0", "684", "0.700"] in page.rows
    assert ["3 (knee)", "0.900", "1", "12,810", "0.4 %", "31 s", "51,240"] in page.rows
    assert ["29", "0.960", "3", "2,332,632", "64.5 %", "1 min 11 s", "9,330,528"] in page.rows
    assert (tmp_path / "importances.png").is_file()
    described = [a["aria-label"] for a in page.all("svg")]
    assert "How much each block matters for the score: stage5 70.0 %, <b> 30.0 %." in described
