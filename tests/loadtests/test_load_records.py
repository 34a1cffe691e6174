from __future__ import annotations

import pytest
from load_samples import failed, make_record

from loadtests.errors import ReportError
from loadtests.records import RecordWriter, read_records


def test_records_survive_the_file(tmp_path):
    path = tmp_path / "records.jsonl"
    written = [make_record(), failed(model='odd "name"\n')]
    writer = RecordWriter(path)
    for record in written:
        writer.write(record)
    # Before close: an interrupted run must find them.
    assert list(read_records(path)) == written
    writer.close()


def test_a_line_cut_off_is_left_out(tmp_path):
    path = tmp_path / "records.jsonl"
    line = make_record().model_dump_json()
    path.write_text(f"{line}\n{line[:40]}")
    assert len(list(read_records(path))) == 1


def test_a_foreign_line_is_named(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(make_record().model_dump_json() + '\n{"x": 1}\n')
    with pytest.raises(ReportError, match=r"records\.jsonl:2"):
        list(read_records(path))
