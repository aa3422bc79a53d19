"""Class tables in files and in checkpoints, and labels of every encoding read with them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from my_dataset import IGNORE, Sample, SegmentationDataset, list_samples
from src.errors import UserError
from tests.made import COLOURS, TABLE, ids_of
from train_utils.data.class_table import BINARY, ClassTable, find_table, read_table
from train_utils.data.labels import read_label
from train_utils.data.public_datasets import CAMVID

IDS = ids_of(0)


@pytest.fixture
def table(tmp_path):
    (tmp_path / "classes.csv").write_text(TABLE)
    return read_table(tmp_path / "classes.csv")


def read(tmp_path, picture, table, name="label.png"):
    """(target, encoding) of a PIL image that is saved and read with the table."""
    picture.save(tmp_path / name)
    return read_label(tmp_path / name, table)


def palette(ids, colours):
    picture = Image.fromarray(ids)
    picture.putpalette(np.asarray(colours, np.uint8).tobytes())
    return picture


# --- tables --------------------------------------------------------------------------------------


def test_csv_and_json_give_the_same_table(tmp_path, table):
    rows = [
        {"id": 0, "name": "ground", "colour": [20, 40, 60]},
        {"id": 1, "name": "brick", "color": "#c8501e"},
        {"id": 2, "name": "water", "colour": "(60, 160, 220)", "ignore": False},
        {"id": 9, "name": "unclear", "colour": "255 255 255", "ignore": True},
    ]
    (tmp_path / "other.json").write_text(json.dumps({"classes": rows}))
    assert read_table(tmp_path / "other.json") == table
    assert table.names == ("ground", "brick", "water")
    assert table.colours == tuple(map(tuple, COLOURS.tolist()))
    assert table.numbers == {0: 0, 1: 1, 2: 2, 9: IGNORE}
    assert table.palette[(255, 255, 255)] == IGNORE


def test_ids_may_begin_above_0_and_several_colours_may_mean_one_class(tmp_path):
    (tmp_path / "t.csv").write_text(
        "ID, Name, r, g, b, ignore\n"
        "7,road,1,2,3,\n7,kerb,4,5,6,\n0,void,0,0,0,yes\n3,sky,9,9,9,no\n"
    )
    table = read_table(tmp_path / "t.csv")
    assert table.names == ("sky", "road") and table.numbers == {3: 0, 7: 1, 0: IGNORE}
    assert table.palette == {(9, 9, 9): 0, (1, 2, 3): 1, (4, 5, 6): 1, (0, 0, 0): IGNORE}
    assert table.colours == ((9, 9, 9), (1, 2, 3))


@pytest.mark.parametrize(
    "text, named",
    [
        ("", "no class table"),
        ("number,label\n1,a\n", "an id each"),
        ("id,name\n0,a\nx,b\n", "row 2: the id 'x'"),
        ("id,name\n0,a\n-1,b\n", "row 2: the id '-1'"),
        ("id,name,colour\n0,a,#00000\n1,b,\n", "row 1: the colour '#00000'"),
        ("id,name,colour\n0,a,1 2 300\n1,b,\n", "row 1: the colour '1 2 300'"),
        ("id,name,ignore\n0,a,\n1,b,perhaps\n", "row 2: ignore is 'perhaps'"),
        ("id,name\n0,a\n1,a\n", "two classes are called 'a'"),
        (
            "id,name,colour\n0,a,#000000\n1,b,#000000\n",
            r"colour \(0, 0, 0\) stands for two classes",
        ),
        ("id,name,ignore\n0,a,\n0,a,1\n1,b,\n", "id 0 is both ignored and not"),
        ("id,name,ignore\n0,a,\n1,b,1\n", "has 1 classes that are not ignored"),
    ],
)
def test_invalid_tables_are_refused_by_row(tmp_path, text, named):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=named) as caught:
        read_table(tmp_path / "t.csv")
    assert str(tmp_path / "t.csv") in str(caught.value)


@pytest.mark.parametrize("content", ["{", '"text"', "[1, 2]", '{"rows": []}', "[]"])
def test_broken_json_is_refused(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(UserError, match="t.json"):
        read_table(tmp_path / "t.json")


def test_a_table_beside_the_data_is_found_unless_a_flag_names_another(tmp_path, table):
    assert find_table(tmp_path, "", BINARY) == table
    (tmp_path / "below").mkdir()
    assert find_table(tmp_path / "below", "", BINARY) is BINARY
    assert find_table(tmp_path / "below", str(tmp_path / "classes.csv"), BINARY) == table
    (tmp_path / "classes.json").write_text("[]")
    with pytest.raises(UserError, match="both exist"):
        find_table(tmp_path, "", BINARY)
    with pytest.raises(UserError, match="no such class table"):
        find_table(tmp_path, "nowhere.csv", BINARY)


def test_dataset_json_is_read_beside_volumes_alone(tmp_path):
    """Other tools write files of that name too."""
    (tmp_path / "dataset.json").write_text('{"labels": ["cat", "dog"]}')
    assert find_table(tmp_path, "", BINARY) is BINARY
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(UserError, match="its labels cannot be read"):
        find_table(tmp_path, "", BINARY)


@pytest.mark.parametrize("kind", ["file", "binary", "camvid"])
def test_a_table_survives_a_checkpoint_and_json(tmp_path, table, kind):
    table = {"file": table, "binary": BINARY, "camvid": CAMVID}[kind]
    torch.save({"class_table": table.to_dict()}, tmp_path / "table.pth")
    loaded = torch.load(tmp_path / "table.pth", weights_only=True)["class_table"]
    assert loaded.keys() == {"names", "colours", "numbers", "palette", "any_pair"}
    for values in (table.to_dict(), loaded, json.loads(json.dumps(loaded))):
        again = ClassTable.from_dict(values)
        assert again == table
        assert again.describe() == table.describe() and again.ids == table.ids


# --- encodings -----------------------------------------------------------------------------------

# For a palette image whose program numbered the colours in its own order.
SHUFFLED = np.array([2, 0, 1], np.uint8)
ENCODINGS = {
    "ids": lambda: (Image.fromarray(IDS), "ids"),
    "ids in 16 bits": lambda: (Image.fromarray(IDS.astype(np.uint16)), "ids"),
    "ids in RGB": lambda: (Image.fromarray(IDS).convert("RGB"), "ids"),
    "palette of the table": lambda: (palette(IDS, COLOURS), "palette colours"),
    "palette in another order": lambda: (
        palette(SHUFFLED[IDS], COLOURS[np.argsort(SHUFFLED)]),
        "palette colours",
    ),
    "palette of other colours": lambda: (
        palette(IDS, [(0, 0, 0), (255, 0, 0), (0, 255, 0)]),
        "palette indices",
    ),
    "RGB": lambda: (Image.fromarray(COLOURS[IDS]), "RGB colours"),
    "RGBA": lambda: (Image.fromarray(COLOURS[IDS]).convert("RGBA"), "RGB colours"),
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_every_encoding_gives_the_same_target(tmp_path, table, kind):
    picture, encoding = ENCODINGS[kind]()
    target, found = read(tmp_path, picture, table)
    assert np.array_equal(target, IDS) and target.dtype == np.uint8 and found == encoding


def test_ignored_ids_and_colours_become_255(tmp_path, table):
    ids, colours, expected = IDS.copy(), COLOURS[IDS], IDS.copy()
    ids[:3], colours[:3], expected[:3] = 9, 255, IGNORE
    assert np.array_equal(read(tmp_path, Image.fromarray(ids), table)[0], expected)
    assert np.array_equal(read(tmp_path, Image.fromarray(colours), table)[0], expected)


@pytest.mark.parametrize("low, high, encoding", [(0, 255, "0/255"), (0, 1, "ids")])
def test_two_classes_may_be_stored_as_0_and_255(tmp_path, low, high, encoding):
    (tmp_path / "t.csv").write_text("id,name\n0,road\n1,crack\n")
    mask = np.where(IDS > 0, high, low).astype(np.uint8)
    target, found = read(tmp_path, Image.fromarray(mask), read_table(tmp_path / "t.csv"))
    assert np.array_equal(target, IDS > 0) and found == encoding


def test_0_1_and_255_together_need_a_table_that_ignores_255(tmp_path):
    mask = np.where(IDS == 2, 255, IDS)
    for text, refused in (
        ("id,name\n0,road\n1,crack\n", True),
        ("id,name,ignore\n0,road,\n1,crack,\n255,void,1\n", False),
    ):
        (tmp_path / "t.csv").write_text(text)
        if refused:
            with pytest.raises(
                UserError, match=r"1 value outside the class table: 255 \(\d+ pixels\)"
            ):
                read(tmp_path, Image.fromarray(mask), read_table(tmp_path / "t.csv"))
        else:
            assert np.array_equal(
                read(tmp_path, Image.fromarray(mask), read_table(tmp_path / "t.csv"))[0], mask
            )


def test_greys_of_classes_are_read_as_colours(tmp_path):
    (tmp_path / "t.csv").write_text("id,name,colour\n0,a,#000000\n1,b,#808080\n2,c,#ffffff\n")
    greys = np.array([0, 128, 255], np.uint8)[IDS]
    target, found = read(tmp_path, Image.fromarray(greys), read_table(tmp_path / "t.csv"))
    assert np.array_equal(target, IDS) and found == "grey colours"


def test_a_grey_image_is_read_by_its_ids_even_if_its_greys_are_colours_of_the_table(tmp_path):
    (tmp_path / "t.csv").write_text("id,name,colour\n0,a,#010101\n1,b,#020202\n2,c,#000000\n")
    table = read_table(tmp_path / "t.csv")
    assert np.array_equal(read(tmp_path, Image.fromarray(IDS), table)[0], IDS)
    by_colour, found = read(tmp_path, Image.fromarray(IDS).convert("RGB"), table)
    assert np.array_equal(by_colour, np.array([2, 0, 1])[IDS]) and found == "RGB colours"


@pytest.mark.parametrize(
    "make, named",
    [
        (
            lambda ids: Image.fromarray(np.where(ids == 2, 77, ids).astype(np.uint8)),
            r"1 value outside .*: 77 \(576 pixels\); add it",
        ),
        (
            lambda ids: Image.fromarray(
                np.where(ids[..., None] == 2, 7, COLOURS[ids]).astype(np.uint8)
            ),
            r"1 colour outside .*: \(7, 7, 7\) \(576 pixels\)",
        ),
        (
            lambda ids: Image.fromarray(COLOURS[ids]).resize((200, 200), Image.Resampling.BICUBIC),
            "so many look like JPEG or smoothed",
        ),
        (
            lambda ids: Image.fromarray(ids * np.uint8(100)),
            r"2 values outside .*200 \(576 .*100 \(100 ",
        ),
    ],
)
def test_values_outside_the_table_are_listed_with_counts_and_the_file(tmp_path, table, make, named):
    ids = np.zeros((40, 40), np.uint8)
    ids[:24, :24] = 2
    ids[30:, 30:] = 1
    with pytest.raises(UserError, match=named) as caught:
        read(tmp_path, make(ids), table)
    assert str(tmp_path / "label.png") in str(caught.value)


def test_a_colour_image_needs_colours_in_the_table(tmp_path):
    (tmp_path / "t.csv").write_text("id,name\n0,a\n1,b\n2,c\n")
    with pytest.raises(UserError, match="colour picture, but the class table has no colours"):
        read(tmp_path, Image.fromarray(COLOURS[IDS]), read_table(tmp_path / "t.csv"))


def test_a_black_and_white_palette_is_read_by_its_colours_whatever_the_indices(tmp_path):
    picture = palette((IDS == 0).astype(np.uint8), [(255, 255, 255), (0, 0, 0)])
    assert np.array_equal(read(tmp_path, picture, BINARY)[0], IDS > 0)


# --- CamVid --------------------------------------------------------------------------------------

CAMVID_COLOURS = np.array([*CAMVID.colours, (0, 0, 0)], np.uint8)


def test_camvid_ids_and_colours_give_the_same_targets_bit_for_bit(tmp_path):
    """Earlier code looked ids up among the colours and found none, so all became class 0."""
    ids = np.random.default_rng(0).integers(0, 12, (30, 40)).astype(np.uint8)
    by_ids, first = read(tmp_path, Image.fromarray(ids), CAMVID, "ids.png")
    by_colours, second = read(tmp_path, Image.fromarray(CAMVID_COLOURS[ids]), CAMVID, "colours.png")
    assert (first, second) == ("ids", "RGB colours")
    expected = np.where(ids == 11, IGNORE, ids).astype(np.uint8)
    assert by_ids.tobytes() == by_colours.tobytes() == expected.tobytes()
    assert len(np.unique(by_ids)) == 12


def test_camvid_has_the_32_colours_of_the_original_labels():
    for colour, name in (
        ((0, 0, 192), "pavement"),
        ((64, 0, 64), "building"),
        ((192, 0, 192), "bicyclist"),
        ((0, 64, 64), "sign"),
    ):
        assert CAMVID.names[CAMVID.palette[colour]] == name
    assert (
        len(CAMVID.names) == 11 and len(CAMVID.palette) == 33
    )  # 32, and SegNet's own for pavement


def test_real_camvid_recoloured_gives_the_same_targets(camvid_root, tmp_path):
    samples = list_samples("camvid", camvid_root)["val"][::25]
    recoloured = []
    for sample in samples:
        Image.fromarray(CAMVID_COLOURS[np.asarray(Image.open(sample.label))]).save(
            tmp_path / f"{sample.name}.png"
        )
        recoloured.append(Sample(sample.name, sample.image, tmp_path / f"{sample.name}.png"))
    by_ids, by_colours = (
        SegmentationDataset(samples, CAMVID),
        SegmentationDataset(recoloured, CAMVID),
    )
    for i in range(len(samples)):
        assert torch.equal(by_ids[i][1], by_colours[i][1])
        assert len(by_ids[i][1].unique()) > 8
    assert by_ids.encodings.keys() == {"ids"}
    assert by_colours.encodings.keys() == {"RGB colours"}
