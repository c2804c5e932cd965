import re
import warnings

import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt
from report_examples import SIZES, WINNER, make_comparison, make_data, make_partition

from hf_biotune.card import code, escaped, fenced, update_card
from hf_biotune.report import write_report
from hf_biotune.report.card import evaluation_results, write_model_card

HOSTILE = (
    "<script>alert(1)</script> [a](https://evil.example) ![b](x.png) `c` ``d`` | e | **f** "
    "https://evil.example www.evil.example me@evil.example $x$ \N{RIGHT-TO-LEFT OVERRIDE} {{ 7*7 }}"
    "\n---\nlicense: evil\n---\n# Heading\n```\n<!-- hf_biotune: end -->"
)
PLAIN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def split(path):
    """The header as YAML, and the text."""
    _, header, text = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(header), text


def tokens(text):
    """All Markdown elements of a text, those within lines included."""
    for token in PLAIN.parse(text):
        yield token
        yield from token.children or ()


def table_after(text, heading):
    """The rows of the first table after a heading, without markup."""
    rows = re.findall(r"^\|(.*)\|$", text.split(heading, 1)[1].split("\n\n## ")[0], re.MULTILINE)
    return [
        [cell.strip().strip("`*") for cell in row.split("|")] for row in rows if ":--" not in row
    ]


@pytest.fixture
def card(tmp_path):
    return split(write_model_card(tmp_path, make_data(), seed=1))


def test_the_header_says_what_the_hub_needs_to_know(tmp_path):
    path = write_model_card(
        tmp_path,
        make_data(),
        base_model="timm/tf_efficientnet_lite0.in1k",
        dataset="ylecun/mnist",
        license="apache-2.0",
    )
    header, _ = split(path)
    assert header.pop("model-index")
    assert header == {
        "base_model": "timm/tf_efficientnet_lite0.in1k",
        "datasets": ["ylecun/mnist"],
        "library_name": "hf_biotune",
        "license": "apache-2.0",
        "pipeline_tag": "image-classification",
        "tags": ["biotune", "peft"],
    }


def test_what_is_not_on_the_hub_or_not_known_is_left_out_of_the_header(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo" / "lite0").mkdir(parents=True)
    for base in ("demo/lite0", "timm:resnet50", "/tmp/x", None):
        header, _ = split(
            write_model_card(tmp_path / str(base).strip("/"), make_data(), base_model=base)
        )
        assert {"base_model", "datasets", "license"}.isdisjoint(header)


def test_the_blocks_are_listed_with_their_rates(card):
    rows = table_after(card[1], "## Blocks and rates")
    assert rows[0] == ["Block", "Parameters", "Share", "Multiplier", "Learning rate"]
    assert [row[0] for row in rows[1:-1]] == list(SIZES)
    assert {row[0]: row[4] for row in rows[1:-1] if row[3] != "frozen"} == {
        "stage1": "0.0025",
        "stage2": "0.0004",
        "stage3": "0.001",
        "stage5": "0.008",
    }
    assert rows[-1][:2] == ["Trained in total", "2,332,632"]


def test_without_a_known_base_rate_no_rates_are_claimed(tmp_path):
    _, text = split(write_model_card(tmp_path, make_data(facts={})))
    assert table_after(text, "## Blocks and rates")[0][-1] == "Multiplier"


def test_every_seed_of_every_method_is_listed(card):
    rows = table_after(
        card[1], "Each training on its own; the weights here are those of BioTune, seed 1"
    )
    assert rows[1:] == [
        ["linear probe", "0", "0.759", "0.769"],
        ["linear probe", "1", "0.756", "0.766"],
        ["full fine-tuning", "0", "0.911", "0.921"],
        ["full fine-tuning", "1", "0.913", "0.923"],
        ["BioTune", "0", "0.941", "0.951"],
        ["BioTune", "1", "0.945", "0.955"],
    ]


def test_the_model_index_holds_the_mean_and_the_score_of_these_weights(card):
    (model,) = card[0]["model-index"]
    test, validation = model["results"]
    assert (test["dataset"]["split"], validation["dataset"]["split"]) == ("test", "validation")
    mean, own = test["metrics"]
    assert mean["name"] == "macro accuracy, mean of 2 seeds"
    assert mean["value"] == pytest.approx(0.953)
    assert mean["args"] == {"seeds": [0, 1], "scores": [0.951, 0.955]}
    assert (own["name"], own["value"]) == ("macro accuracy, seed 1 (these weights)", 0.955)
    assert own["args"]["seeds"] == [1]


def test_a_single_seed_gets_no_interval_and_no_mean(tmp_path):
    comparison = make_comparison((0.95,), (0.92,), (0.77,))
    header, text = split(write_model_card(tmp_path, make_data(comparison=comparison), seed=0))
    (metric,) = header["model-index"][0]["results"][0]["metrics"]
    assert (metric["name"], metric["value"]) == ("macro accuracy, seed 0", 0.95)
    assert not re.search(r"\d ± \d", text)
    assert "One seed per method" in text


def test_a_seed_that_failed_is_not_averaged(tmp_path):
    comparison = make_comparison(biotune=(0.95, float("nan")))
    results = evaluation_results(make_data(comparison=comparison), seed=1)
    assert [(r.metric_name, r.metric_value) for r in results if r.dataset_split == "test"] == [
        ("macro accuracy, seed 0", 0.95)
    ]


@pytest.mark.parametrize(
    "comparison", [None, make_comparison().iloc[:0], make_comparison().iloc[:2]]
)
def test_without_a_measured_score_none_is_claimed(tmp_path, comparison):
    header, text = split(write_model_card(tmp_path, make_data(comparison=comparison)))
    assert "model-index" not in header
    if comparison is None:
        assert "## Scores" not in text
        assert "no comparison on a test set" in text


def test_without_a_test_set_only_validation_scores_are_claimed(tmp_path):
    comparison = make_comparison()
    comparison["test_scores"] = [[], [], []]
    header, _ = split(write_model_card(tmp_path, make_data(comparison=comparison)))
    splits = [result["dataset"]["split"] for result in header["model-index"][0]["results"]]
    assert splits == ["validation"]


def test_what_the_search_cost_is_listed(card):
    rows = table_after(card[1], "## What the search cost")
    assert ["search time", "12 min 10 s"] in rows
    assert "40 individuals in 4 generations: 40 complete." in card[1]
    assert "hf-biotune tune --model tf_efficientnet_lite0" in card[1]


def test_figures_are_shown_only_where_they_exist(tmp_path):
    _, without = split(write_model_card(tmp_path / "a", make_data()))
    assert "![" not in without
    assert "report.html" not in without
    write_report(tmp_path / "b", make_data())
    _, text = split(write_model_card(tmp_path / "b", make_data()))
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    names = ["blocks", "evolution", "individuals", "comparison", "pareto"]
    assert images == [f"{name}.png" for name in names]
    assert all((tmp_path / "b" / image).is_file() for image in images)
    assert "[report.html](report.html)" in text


def test_both_papers_are_cited(card):
    assert {"2508.15367", "2601.11235"} <= set(re.findall(r"arxiv.org/abs/([\d.]+)", card[1]))


def test_nothing_that_strangers_named_has_a_meaning_in_the_card(tmp_path):
    sizes = {f"{name}{HOSTILE}": size for name, size in SIZES.items()}
    multipliers = {f"{name}{HOSTILE}": factor for name, factor in WINNER.items()}
    partition = make_partition(sizes)
    comparison = make_comparison()
    comparison["method"] = [f"probe {HOSTILE}", HOSTILE, "BioTune"]
    data = make_data(
        title=HOSTILE,
        model_name=HOSTILE,
        dataset_name=HOSTILE,
        metric=HOSTILE,
        partition=partition,
        history=pd.DataFrame(),
        best_multipliers=multipliers,
        norm_statistics=HOSTILE,
        comparison=comparison,
        facts={HOSTILE: HOSTILE},
        command=HOSTILE,
        python=HOSTILE,
    )
    header, text = split(write_model_card(tmp_path, data, seed=1))
    assert set(header) == {"library_name", "pipeline_tag", "model-index", "tags"}
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
    assert "{{ 7*7 }}" in text
    kinds = {token.type for token in tokens(text)}
    assert {"image", "s_open", "em_open"}.isdisjoint(kinds)
    links = [t.attrs["href"] for t in tokens(text) if t.type == "link_open"]
    assert all(link.startswith("https://arxiv.org/abs/") for link in links)
    html = [t.content for t in tokens(text) if t.type in ("html_block", "html_inline")]
    assert all(content.startswith("<!-- hf_biotune: ") for content in html)
    headings = [t for t in tokens(text) if t.type == "heading_open"]
    assert [h.tag for h in headings] == ["h1"] + ["h2"] * 5
    # Addresses become links by themselves wherever they stand in plain text.
    for token in tokens(text):
        if token.type == "text":
            assert not re.search(r"://evil|www\.evil|@evil", token.content)


def test_a_hostile_name_breaks_no_row_of_a_table(tmp_path):
    partition = make_partition({f"{name}{HOSTILE}": size for name, size in SIZES.items()})
    data = make_data(partition=partition, best_multipliers={}, history=pd.DataFrame())
    _, text = split(write_model_card(tmp_path, data))
    cells = [t.type for t in tokens(text.split("## Blocks and rates")[1].split("## How")[0])]
    assert cells.count("td_open") == 5 * (len(SIZES) + 1)


def test_a_second_card_replaces_the_first_and_keeps_what_people_wrote(tmp_path):
    path = write_model_card(tmp_path, make_data(), seed=1)
    first = path.read_text(encoding="utf-8")
    write_model_card(tmp_path, make_data(), seed=1)
    assert path.read_text(encoding="utf-8") == first
    header, text = first.split("tags:\n", 1)
    edited = f"{header}language: de\ntags:\n- flowers\n{text}\nUsed in a greenhouse.\n"
    path.write_text(edited, encoding="utf-8")
    write_model_card(tmp_path, make_data(title="Another run"), seed=1)
    header, text = split(path)
    assert header["language"] == "de"
    assert header["tags"] == ["flowers", "biotune", "peft"]
    assert text.endswith("\nUsed in a greenhouse.\n")
    assert "# Another run" in text
    assert "# BioTune on mnist-200" not in text


def test_a_hostile_end_mark_does_not_cut_a_card_in_two(tmp_path):
    data = make_data(command=HOSTILE, python=HOSTILE, model_name=HOSTILE)
    path = write_model_card(tmp_path, data)
    first = path.read_bytes()
    write_model_card(tmp_path, data)
    assert path.read_bytes() == first


def test_a_card_of_a_person_is_continued(tmp_path):
    (tmp_path / "README.md").write_text("# My model\n\nIt is mine.\n", encoding="utf-8")
    header, text = split(write_model_card(tmp_path, make_data()))
    assert header["library_name"] == "hf_biotune"
    assert text.startswith("# My model\n\nIt is mine.\n\n<!-- hf_biotune:")


@pytest.mark.parametrize(
    "text", ["---\na: [\n---\n# Mine\n", "---\n- a\n---\n# Mine\n", b"\xff\xfe"]
)
def test_a_card_with_a_broken_header_is_left_as_it_is(tmp_path, text):
    path = tmp_path / "README.md"
    before = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(before)
    with pytest.warns(UserWarning, match="is left as it is, for its header can't be read"):
        write_model_card(tmp_path, make_data())
    assert path.read_bytes() == before


def test_a_card_never_half_exists(tmp_path, monkeypatch):
    path = write_model_card(tmp_path, make_data())
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("hf_biotune.card.metadata_save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_model_card(tmp_path, make_data(title="Another run"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["README.md"]


def test_the_adapter_s_own_card_leaves_a_person_s_text_alone(tmp_path):
    (tmp_path / "README.md").write_text("# My model\n", encoding="utf-8")
    path = update_card(tmp_path, "ours", {"library_name": "hf_biotune"}, add_section=False)
    header, text = split(path)
    assert text == "# My model\n"
    assert header == {"library_name": "hf_biotune", "tags": ["biotune", "peft"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "`plain`"),
        ("a`b", "``a`b``"),
        ("`a", "`` `a ``"),
        ("", "` `"),
        ("a|b", "`a\N{BROKEN BAR}b`"),
        ("a\nb\tc\x00", "`a b c`"),
    ],
)
def test_code_spans_hold_any_text(text, expected):
    assert code(text) == expected


def test_escaped_text_reads_as_it_was_written():
    text = r"a*b* _c_ [d](e) <f> & `g` \h ~~i~~ $j$ | k"
    (paragraph,) = [t for t in PLAIN.parse(escaped(text)) if t.type == "inline"]
    shown = "".join(child.content for child in paragraph.children)
    assert shown == text


def test_a_code_block_can_not_be_left():
    block = fenced("a\n````\n# b", "python")
    assert [t.type for t in PLAIN.parse(block)] == ["fence"]


def test_a_long_text_is_cut():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(code("x" * 10_000)) < 310
