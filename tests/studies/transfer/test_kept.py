"""Trained sources are kept beside the log, so that another machine goes on with them."""

from studies.transfer.kept import keep, restore


def write(folder, text):
    folder.mkdir(parents=True)
    (folder / "weights").write_text(text)


def test_sources_go_on_elsewhere(tmp_path):
    work, log, other = (tmp_path / name for name in ("work", "log", "other"))
    write(work / "mpt-1", "one")
    write(work / "teachers-words" / "sst2", "teacher")
    for name in ("mpt-2.unfinished", "claims", "smollm2", "unpacked"):
        write(work / name, "not kept")
    keep(work, log)
    write(work / "teachers-words" / "trec", "another")  # What comes later is kept too.
    keep(work, log)
    write(other / "mpt-1", "its own")
    restore(log, other)
    found = {str(p.relative_to(other)): p.read_text() for p in other.rglob("weights")}
    assert found == {
        "mpt-1/weights": "its own",
        "teachers-words/sst2/weights": "teacher",
        "teachers-words/trec/weights": "another",
    }
    restore(tmp_path / "no log yet", other)


def test_model_cards_are_no_pages_of_the_site(tmp_path):
    work, log = tmp_path / "work", tmp_path / "log"
    write(work / "mpt-1", "one")
    (work / "mpt-1" / "README.md").write_text("# A card")
    keep(work, log)
    assert [path.name for path in log.rglob("*") if path.is_file()] == ["weights"]
