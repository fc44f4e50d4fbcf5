"""The report's archive of tables."""

import zipfile  # noqa: TID251  of our own

from prunecal.report import archive


def test_tables_are_packed_whole_with_their_captions_into_the_same_bytes(tmp_path):
    (tmp_path / "matched.csv").write_text("a,b\n1,2\n")
    (tmp_path / "matched.tex").write_text("% one")
    (tmp_path / "matched_table.rst").write_text("What ``a`` is.\n")
    packed = [tmp_path / "one.zip", tmp_path / "two.zip"]
    for path in packed:
        command = ["--tables", str(tmp_path / "matched.csv"), str(tmp_path / "matched.tex")]
        command += ["--captions", str(tmp_path / "matched_table.rst"), "--output", str(path)]
        archive.main(archive.arguments_of(command))
    assert packed[0].read_bytes() == packed[1].read_bytes()
    with zipfile.ZipFile(packed[0]) as opened:
        assert {one.date_time for one in opened.infolist()} == {archive.WRITTEN}
        assert sorted(opened.namelist()) == ["README.txt", "matched.csv", "matched.tex"]
        assert opened.read("matched.csv") == b"a,b\n1,2\n"
        assert opened.read("README.txt").decode() == "matched.csv, .tex\nWhat a is.\n"
