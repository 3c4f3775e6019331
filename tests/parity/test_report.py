"""docs/parity.md says what was measured, of every family in the table."""

import json

from tests.parity.families import FAMILIES, TRAINED
from tools.parity import DOCUMENT, JSON_FILE
from tools.parity_page import render


def test_document_is_made_of_the_measurements():
    assert DOCUMENT.read_text() == render(json.loads(JSON_FILE.read_text()))


def test_every_family_has_a_row():
    report = json.loads(JSON_FILE.read_text())
    rows = {row["family"]: row for row in report["rows"]}
    assert [(f.name, f.task_type, f.note) for f in FAMILIES] == [
        (row["family"], row["task type"], row["note"]) for row in rows.values()
    ]
    assert {name for name, row in rows.items() if row["training"] is not None} == set(TRAINED)
    for family in FAMILIES:
        row = rows[family.name]
        assert max(row["import"], row["export"], row["base"]) <= report["tolerance"]
