"""The page and the chart of a log."""

import xml.etree.ElementTree

import pytest

from studies.transfer import summary
from studies.transfer.command import FOLDER, ROOT, RUNS
from studies.transfer.log import Log
from studies.transfer.page import chart_name, page
from studies.transfer.parts import PARTS
from studies.transfer.render import FROM, TO, refresh, shown, write
from studies.transfer.tables import overview

from .fakes import machine, run, target_runs

HEADS = PARTS["heads"]
CHART = chart_name(HEADS, "shots")
ENTRIES = [
    machine(),
    *target_runs(
        mpt=([0.80, 0.90], [0.60, 0.70]),
        prompt=([0.70, 0.80], [0.55, 0.65]),
        full=([0.75, 0.75], [0.75, 0.75]),
        head=([0.50],),
    ),
    run("prompt", "trec", 0, 0.4, stage="tune", rate=0.003),
    run("prompt", "trec", 0, 0.5, stage="tune", rate=0.01),
]


def lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_the_page_in_the_docs_is_made_of_its_log():
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == page(Log(FOLDER / RUNS).entries)


def test_the_readme_shows_the_means_of_the_log():
    table = shown(Log(FOLDER / RUNS).entries)
    assert FROM + table + TO in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_means_replace_those_of_before(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{FROM}old\n{TO}below\n", encoding="utf-8")
    refresh(readme, ENTRIES)
    refresh(readme, ENTRIES)
    means = shown(ENTRIES)
    assert readme.read_text(encoding="utf-8") == f"above\n{FROM}{means}{TO}below\n"
    readme.write_text(f"above\n{TO}{FROM}below\n", encoding="utf-8")
    with pytest.raises(ValueError, match="`readme` should have .*README.md"):
        refresh(readme, ENTRIES)
    assert readme.read_text(encoding="utf-8") == f"above\n{TO}{FROM}below\n"


def test_the_overview_has_the_means_of_all_seeds_alone():
    table = overview(HEADS, summary.target_runs(ENTRIES))
    assert table.splitlines() == [
        "| method | k = 16 |",
        "| --- | --- |",
        "| prompt tuning | 67.5 |",
        "| MPT | 75.0 |",
        "| full fine-tuning | 75.0 |",
    ]
    short = target_runs(mpt=([0.8, 0.9], [0.6, 0.7]), prompt=([0.7], [0.5]))
    assert "prompt tuning" not in overview(HEADS, summary.target_runs(short))


def test_runs_of_several_budgets_do_not_stand_on_one_page():
    runs = [run("mpt", "cr", 0, 0.5), run("prompt", "cr", 0, 0.5, steps=30)]
    with pytest.raises(ValueError, match="A log should hold runs of one budget .* of 16 rows runs"):
        page(runs)
    page([*runs[:1], run("prompt", "cr", 0, 0.5, shots=4, steps=30)])


def test_sizes_are_those_of_the_runs():
    sources = run("mpt", "sources", 0, 0.5, stage="sources", rows=600, teacher_epochs=2)
    text = page([*ENTRIES, {**sources, "scores": {}}])
    for line in (
        "- pseudo-targets: trec",
        "- rows of a source at most: 600",
        "- virtual tokens: 16",
        "- epochs of each teacher: 2",
        "- steps on the sources: 60",
    ):
        assert lines(text, line) == [line]


def test_settings_say_which_rows_chose_a_rate():
    tuned = run("prompt", "trec", 0, 0.5, shots=4, stage="tune")
    few, many = (run("prompt", "cr", 0, 0.5, shots=at) for at in (4, "full"))
    text = page([tuned, few, many])
    assert "| k = 4 | learning rate of the prompt | 0.01 | 60 | 0.01: 50.0 of 1 |" in text
    assert "| full | learning rate of the prompt | 0.01 | 60 | as k = 4: 0.01: 50.0 of 1 |" in text


def test_scores_are_means_and_deviations_in_percent():
    text = page(ENTRIES)
    # Of 80 and 90: 85 and √50; of the seeds' means 70 and 80: 75 and √50.
    assert lines(text, "| MPT | 85.0") == ["| MPT | 85.0 ± 7.1 | 65.0 ± 7.1 | 75.0 ± 7.1 |"]
    assert lines(text, "| head only | 50") == ["| head only | 50.0 |  |  |"]


def test_differences_are_in_points_with_their_targets():
    text = page(ENTRIES)
    (line,) = lines(text, "| MPT − prompt tuning")
    # +10 at each seed of cr, +5 at each of snips: an interval of no width.
    assert line == "| MPT − prompt tuning | +7.5 (+7.5 to +7.5; 2 targets) |"
    (line,) = lines(text, "| MPT − head only")
    assert line == "| MPT − head only | +30.0 (1 targets, no interval) |"
    assert not lines(text, "| MPT − PEFT's MPT")


def test_what_the_intervals_say():
    text = page(
        target_runs(
            mpt=([0.80, 0.90], [0.60, 0.70]),
            prompt=([0.70, 0.80], [0.55, 0.65]),
            full=([0.85, 0.95], [0.65, 0.75]),
            head=([0.70, 1.00], [0.60, 0.70]),
        )
    )
    (line,) = lines(text, "- k = 16, ahead: ")
    assert "MPT of prompt tuning by 7.5; full fine-tuning of MPT by 5.0" in line
    (line,) = lines(text, "- k = 16, not told apart: ")
    assert "MPT and head only" in line
    assert "### What it says" not in page([machine()])


def test_seconds_of_other_numbers_of_threads_are_left_out():
    runs = [run("prompt", "cr", seed, 0.5) | {"threads": 2, "seconds": 5.0} for seed in (0, 1)]
    runs.append(run("prompt", "cr", 2, 0.5) | {"threads": 1, "seconds": 90.0})
    text = page(runs)
    assert "median seconds of a training with threads: 2, " in text
    assert "| prompt tuning | 6,914 |  | 27,656 | 5.0 s |" in text


def test_seconds_of_a_busy_machine_are_left_out():
    runs = [run("prompt", "cr", seed, 0.5) | {"seconds": 90.0, "busy": True} for seed in (0, 1)]
    runs.append(run("prompt", "cr", 2, 0.5) | {"seconds": 5.0})
    text = page(runs)
    assert "5.0 s" in text and "90.0 s" not in text
    assert "90.0 s" not in page(runs[:2])


def test_costs_and_settings():
    text = page(ENTRIES)
    assert "| MPT | 6,914 | 0.0314% | 27,656 | 10.5 s |" in text
    assert "| full fine-tuning | 22,000,000 | 100% | 88,000,000 | 10.5 s |" in text
    (line,) = lines(text, "| prompt tuning | k = 16")
    assert line.endswith("| 0.01 (edge) | 60 | 0.003: 40.0 of 1; 0.01: 50.0 of 1 |")
    (line,) = lines(text, "| MPT | k = 16")
    assert line.endswith("| not tuned |")


def test_missing_runs_are_told():
    text = page(ENTRIES)
    (line,) = lines(text, "- k = 16, 15 runs of each method wanted; fewer: ")
    assert "head only 1; prompt tuning 4;" in line
    assert "none yet: " in line and line.rindex("PEFT's MPT") > line.index("none yet: ")
    (line,) = lines(text, "- full, 5 runs of each method wanted; none yet: head only; ")


@pytest.mark.parametrize("quick", [True, False])
def test_a_quick_run_is_shown_as_one(quick):
    assert ("Its numbers mean nothing" in page([machine(quick), *ENTRIES[1:]])) is quick


def test_nothing_is_said_to_be_tuned_that_was_not():
    untuned = [entry for entry in ENTRIES if entry["stage"] != "tune"]
    assert "Nothing was tuned" in page(untuned)
    assert "Nothing was tuned" not in page(ENTRIES)


def test_an_empty_log_has_a_page():
    text = page([])
    assert "No run is in the log yet." in text
    assert "### Scores" not in text


def test_sources_are_shown_task_by_task():
    entry = run("mpt", "sources", 0, 0.7, shots="full", stage="sources", steps=1500)
    entry |= {"scores": {"sst2": 0.8, "cola": 0.6}, "seconds": 600.0, "teacher_seconds": 300.0}
    # Teachers that an earlier run had trained count as well; other teachers do not.
    earlier = run("mpt", "sources", 0, 0.6, shots="full", stage="tune sources", steps=400)
    others = run("mpt", "sources", 0, 0.6, shots="full", stage="tune sources", teacher_epochs=9)
    text = page([earlier | {"teacher_seconds": 40.0}, others | {"teacher_seconds": 5.0}, entry])
    assert "| method | sst2 | cola (Matthews) | mean | seeds | steps | rate | training |" in text
    line = "| MPT | 80.0 | 60.0 | 70.0 | 1 | 1,500 | 0.01 | 600 s and 340 s for the teachers |"
    assert line in text
    assert "| difference |" not in text


def test_sources_of_several_seeds_are_compared():
    def source(method, seed, sst2, cola, rate=0.01):
        given = run(method, "sources", seed, (sst2 + cola) / 2, stage="sources", rate=rate)
        return {**given, "scores": {"sst2": sst2, "cola": cola}}

    text = page(
        [
            source("peft_mpt", 0, 0.7, 0.5),
            source("mpt", 0, 0.1, 0.1, rate=0.003),  # Of a rate that was given up.
            source("mpt", 0, 0.8, 0.6),
            source("mpt", 1, 0.9, 0.5),
            source("peft_mpt", 1, 0.7, 0.4),
        ]
    )
    (line,) = lines(text, "| MPT | 85")
    assert line == "| MPT | 85.0 ± 7.1 | 55.0 ± 7.1 | 70.0 ± 0.0 | 2 | 60 | 0.01 | 10 s |"
    # Of two seeds, +10 and +20: 15 and 12.706 · 5. The means differ by 10 and 15.
    (line,) = lines(text, "| MPT − PEFT's MPT")
    assert line.split(" | ")[1:] == [
        "+15.0 (-48.5 to +78.5)", "+10.0 (+10.0 to +10.0)", "+12.5 (-19.3 to +44.3) |",
    ]  # fmt: skip


def test_the_rate_of_source_training_is_shown_with_its_grid():
    entries = [
        run("mpt", "sources", 0, 0.7, shots="full", stage="sources", rate=0.01, steps=300),
        run("mpt", "sources", 0, 0.4, shots="full", stage="tune sources", rate=0.003),
        run("mpt", "sources", 0, 0.6, shots="full", stage="tune sources", rate=0.01),
        run("mpt", "cr", 0, 0.9),
    ]
    entries[0] |= {"scores": {"sst2": 0.7}, "seconds": 600.0}
    text = page(entries)
    (line,) = lines(text, "| MPT | sources")
    assert line.endswith("| 0.01 (edge) | 300 | 0.003: 40.0 of 1; 0.01: 60.0 of 1 |")
    (line,) = lines(text, "| MPT | k = 16")
    assert line.endswith("| not tuned |")


def test_the_chart_shows_methods_targets_and_shots(tmp_path):
    pytest.importorskip("matplotlib", reason="charts are drawn with it")
    write([*ENTRIES, run("mpt", "cr", 0, 0.9, shots="full")], tmp_path)
    drawn = "".join(xml.etree.ElementTree.parse(tmp_path / CHART).getroot().itertext())
    for name in ("MPT", "prompt tuning", "full fine-tuning", "head only"):
        assert name in drawn
    for name in ("mean over targets", "cr", "snips", "16", "full"):
        assert name in drawn
    assert "PEFT's MPT" not in drawn
    first = (tmp_path / CHART).read_bytes()
    write([*ENTRIES, run("mpt", "cr", 0, 0.9, shots="full")], tmp_path)
    assert (tmp_path / CHART).read_bytes() == first


def test_every_method_has_a_style():
    for part in PARTS.values():
        assert set(part.styles) == set(part.methods)
        assert len({colour for colour, _, _ in part.styles.values()}) == len(part.methods)
