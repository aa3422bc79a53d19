"""predictions.csv and objects.csv: rows are there at once, and the tables survive a kill."""

import numpy as np

from tests.small import error_of
from train_utils.reporting.prediction_tables import ImageTable, VolumeTable


def new_table(folder, keep, names=("background", "road, wet")):
    return ImageTable(folder, names, keep)


def add(table, *names):
    for name in names:
        table.add(name, (10, 20), np.array([150, 50]), 0.25)


def test_rows_are_there_as_soon_as_they_are_added(tmp_path):
    table = new_table(tmp_path, keep=False)
    add(table, "b")
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines == [
        'image,width,height,share_background,"share_road, wet",seconds',
        "b,20,10,0.75,0.25,0.25",
    ]


def test_the_closed_table_has_the_order_of_the_inputs(tmp_path):
    table = new_table(tmp_path, keep=False)
    add(table, "b", "c", "a")
    table.close(["a", "broken", "b", "c"])
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert [line[0] for line in lines[1:]] == ["a", "b", "c"]


def test_a_dropped_row_is_not_written(tmp_path):
    table = new_table(tmp_path, keep=False)
    add(table, "a", "b")
    table = new_table(tmp_path, keep=True)
    table.drop(["a", "never there"])
    table.close([])
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert [line[0] for line in lines[1:]] == ["b"]


def test_a_table_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "predictions.csv").mkdir()
    assert "predictions.csv: cannot be written" in error_of(new_table, tmp_path, keep=False)


def test_a_kept_table_drops_a_line_that_was_cut_short(tmp_path):
    table = new_table(tmp_path, keep=False)
    add(table, "a", "b")
    path = tmp_path / "predictions.csv"
    path.write_text(path.read_text() + "c,20,1")
    table = new_table(tmp_path, keep=True)
    assert list(table.lines) == ["a", "b"]
    add(table, "c", "b")
    table.close(["a", "b", "c"])
    assert [line[0] for line in path.read_text().splitlines()] == ["i", "a", "b", "c"]


def test_a_name_with_a_line_break_is_kept(tmp_path):
    table = new_table(tmp_path, keep=False)
    add(table, "a\nb", 'c "d"\n')
    table = new_table(tmp_path, keep=True)
    assert list(table.lines) == ["a\nb", 'c "d"\n'] and table.row("a\nb")["width"] == "20"
    path = tmp_path / "predictions.csv"
    path.write_text(path.read_text() + '"e\n')  # cut short by a kill
    assert list(new_table(tmp_path, keep=True).lines) == ["a\nb", 'c "d"\n']


def test_a_table_of_other_classes_is_not_kept(tmp_path):
    add(new_table(tmp_path, keep=False), "a")
    assert new_table(tmp_path, keep=True, names=("background", "vessel")).lines == {}


def test_without_keep_the_table_begins_anew(tmp_path):
    add(new_table(tmp_path, keep=False), "a")
    assert new_table(tmp_path, keep=False).lines == {}
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1


# --- objects --------------------------------------------------------------------------------------

OBJECTS = [{"id": 1, "area": 4, "x": 1.5, "y": 2 / 3}, {"id": 3, "area": 7, "x": 9.0, "y": 8.126}]


def table_of_objects(folder, keep=False):
    return ImageTable(folder, ("background", "cell"), keep, with_objects=True)


def add_objects(table, name, objects):
    table.add(name, (10, 20), np.array([150, 50]), 0.25, objects)


def lines_of(path):
    return path.read_text().splitlines()


def test_an_object_is_a_row_of_its_own(tmp_path):
    table = table_of_objects(tmp_path)
    add_objects(table, "b, c", OBJECTS)
    add_objects(table, "a", [])
    assert lines_of(tmp_path / "predictions.csv") == [
        "image,width,height,share_background,share_cell,objects,mean_area,seconds",
        '"b, c",20,10,0.75,0.25,2,5.5,0.25',
        "a,20,10,0.75,0.25,0,,0.25",
    ]
    assert lines_of(tmp_path / "objects.csv") == [
        "image,id,area,x,y",
        '"b, c",1,4,1.5,0.67',
        '"b, c",3,7,9.0,8.13',
    ]


def test_objects_have_the_order_of_the_inputs(tmp_path):
    table = table_of_objects(tmp_path)
    for name in ("b", "a"):
        add_objects(table, name, OBJECTS)
    table.close(["a", "b"])
    assert [line[0] for line in lines_of(tmp_path / "objects.csv")[1:]] == ["a", "a", "b", "b"]


def test_an_image_whose_objects_are_incomplete_is_not_kept(tmp_path):
    table = table_of_objects(tmp_path)
    for name in ("a", "b", "c", "d"):
        add_objects(table, name, [] if name == "d" else OBJECTS)
    path = tmp_path / "objects.csv"
    # A row of "b" is lost, the last row of "c" was cut short, and "e" was never finished.
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:4], lines[5], lines[6][:4]]))
    with open(path, "a", newline="") as file:
        file.write("\r\ne,1,4,1.5,0.67\r\n")
    table = table_of_objects(tmp_path, keep=True)
    assert list(table.lines) == ["a", "d"] and list(table.objects.lines) == ["a"]
    assert len(lines_of(path)) == 3


def test_an_image_that_is_done_again_has_its_objects_once(tmp_path):
    table = table_of_objects(tmp_path)
    add_objects(table, "a", OBJECTS)
    for _ in range(2):  # each run is killed after it wrote the rows of "a"
        table = table_of_objects(tmp_path, keep=True)
        table.drop(["a"])
        add_objects(table, "a", OBJECTS)
    assert list(table_of_objects(tmp_path, keep=True).lines) == ["a"]
    assert len(lines_of(tmp_path / "objects.csv")) == 3


def test_a_table_without_objects_is_not_kept_with_them(tmp_path):
    table = ImageTable(tmp_path, ("background", "cell"), keep=False)
    add(table, "a")
    assert table_of_objects(tmp_path, keep=True).lines == {}


# --- volumes --------------------------------------------------------------------------------------


def test_a_volume_has_its_size_and_shares(tmp_path):
    table = VolumeTable(tmp_path, ("background", "left"), keep=False)
    table.add("x", (10, 20, 30), np.array([4500, 1500]), 2.5)
    assert lines_of(tmp_path / "predictions.csv") == [
        "image,width,height,depth,share_background,share_left,seconds",
        "x,30,20,10,0.75,0.25,2.5",
    ]


def test_rows_with_more_columns_than_wanted_are_kept(tmp_path):
    """Such as those of an earlier call with --instances."""
    path = tmp_path / "predictions.csv"
    path.write_text(
        'image,width,height,share_background,"share_road, wet",objects,mean_area,seconds\n'
        "a,20,10,0.75,0.25,3,16.7,0.25\n"
    )
    assert new_table(tmp_path, keep=True).lines == {"a": "a,20,10,0.75,0.25,0.25\r\n"}
    assert new_table(tmp_path, keep=True, names=("background", "other")).lines == {}
