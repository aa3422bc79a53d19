"""Volumes from and to files: orientation, headers, formats, and files that cannot be used."""

import gzip

import nibabel
import numpy as np
import pytest
from PIL import Image

from src.volume_io import read_label_volume, read_volume, volume_files, write_volume
from src.volumes import Geometry, check_same_space
from tests.small import error_of

AFFINE = np.array([[0.8, 0, 0, -12.5], [0, 1.1, 0, 4], [0, 0, 2.5, 30], [0, 0, 0, 1]])
ORIENTATIONS = ["RAS", "LPS", "PIR", "SLA", "ARI"]


def random_values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def save(path, values, affine=AFFINE, **header):
    """Saves [X, Y, Z] values as NIfTI."""
    image = nibabel.Nifti1Image(values, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def turned(path, codes, target):
    """Saves the volume in `path` again in another orientation, such as LPS, as `target`."""
    image = nibabel.load(path)
    wanted = nibabel.orientations.axcodes2ornt(codes)
    own = nibabel.io_orientation(image.affine)
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(own, wanted)), target)
    assert "".join(nibabel.aff2axcodes(nibabel.load(target).affine)) == codes
    return target


def oblique():
    """An affine whose axes are turned by 20° about the third."""
    angle = np.deg2rad(20)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return rotation @ AFFINE


# --- NIfTI ----------------------------------------------------------------------------------------


def test_axes_are_inferior_to_superior_posterior_to_anterior_left_to_right(tmp_path):
    values = random_values(5, 6, 7)  # right, anterior, superior
    volume, geometry = read_volume(save(tmp_path / "x.nii.gz", values))
    assert volume.dtype == np.float32 and volume.shape == (1, 7, 6, 5)
    np.testing.assert_array_equal(volume[0], values.transpose(2, 1, 0))
    assert geometry.shape == (7, 6, 5)
    assert geometry.spacing == pytest.approx((2.5, 1.1, 0.8))


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("affine", [AFFINE, oblique()], ids=["straight", "oblique"])
def test_every_orientation_reads_the_same_and_is_written_back(tmp_path, codes, affine):
    path = save(tmp_path / "x.nii.gz", random_values(5, 6, 7), affine)
    other = turned(path, codes, tmp_path / "y.nii.gz")
    (first, geometry), (second, turned_geometry) = read_volume(path), read_volume(other)
    np.testing.assert_array_equal(first, second)
    assert turned_geometry.spacing == pytest.approx(geometry.spacing)
    check_same_space(other, turned_geometry, path, geometry)
    labels = (second[0] > 0).astype(np.uint8)
    write_volume(tmp_path / "out.nii.gz", labels, turned_geometry)
    stored, source = nibabel.load(tmp_path / "out.nii.gz"), nibabel.load(other)
    assert stored.shape == source.shape and stored.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(stored.affine, source.affine)
    np.testing.assert_array_equal(np.asarray(stored.dataobj), np.asarray(source.dataobj) > 0)


def test_45_degrees_and_a_rounded_header_are_turned_alike(tmp_path):
    turn, values = np.eye(4), random_values(5, 6, 7)
    turn[:2, :2] = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    first, geometry = read_volume(save(tmp_path / "x.nii.gz", values, turn))
    for seed in range(8):
        rounded = turn + np.pad(random_values(3, 3, seed=seed) * 1e-7, [(0, 1), (0, 1)])
        path = save(tmp_path / "y.nii.gz", values, rounded)
        second, own = read_volume(path)
        check_same_space("y", own, "x", geometry)
        np.testing.assert_array_equal(first, second)
        write_volume(tmp_path / "out.nii.gz", second[0], own)
        np.testing.assert_array_equal(nibabel.load(tmp_path / "out.nii.gz").get_fdata(), values)


def test_the_header_is_the_images(tmp_path):
    path = save(tmp_path / "x.nii", random_values(4, 5, 6), descrip=b"T1 of a phantom", cal_max=9)
    image = nibabel.load(path)
    image.header.set_xyzt_units("mm")
    image.set_sform(AFFINE, code=4)
    image.set_qform(AFFINE, code=1)
    nibabel.save(image, path)
    labels = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    write_volume(tmp_path / "out.nii", labels, read_volume(path)[1])
    header = nibabel.load(tmp_path / "out.nii").header
    assert bytes(header["descrip"]).startswith(b"T1 of a phantom")
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 1)
    assert header.get_xyzt_units() == ("mm", "unknown") and header["cal_max"] == 0
    np.testing.assert_array_equal(read_label_volume(tmp_path / "out.nii")[0], labels)


def test_the_same_labels_give_the_same_bytes(tmp_path):
    _, geometry = read_volume(save(tmp_path / "x.nii.gz", random_values(4, 5, 6)))
    for name in ("a.nii.gz", "b.tmp"):
        write_volume(tmp_path / name, np.ones((6, 5, 4), np.uint8), geometry, ".nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.tmp").read_bytes()


def test_channels_are_the_fourth_axis_and_scaled_integers_are_read(tmp_path):
    values = np.random.default_rng(0).integers(0, 1000, (4, 5, 6, 2)).astype(np.int16)
    image = nibabel.Nifti1Image(values, AFFINE)
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / "x.nii.gz")
    volume, geometry = read_volume(tmp_path / "x.nii.gz", channels=2)
    expected = (np.asarray(nibabel.load(tmp_path / "x.nii.gz").dataobj)).transpose(3, 2, 1, 0)
    np.testing.assert_allclose(volume, expected, rtol=1e-6)
    write_volume(tmp_path / "out.nii.gz", np.ones((6, 5, 4), np.uint8), geometry)
    assert nibabel.load(tmp_path / "out.nii.gz").shape == (4, 5, 6)
    assert np.asarray(nibabel.load(tmp_path / "out.nii.gz").dataobj).max() == 1
    with pytest.raises(ValueError, match="shape"):
        write_volume(tmp_path / "out.nii.gz", np.ones((4, 5, 6), np.uint8), geometry)


def test_labels_that_are_whole_numbers_in_float_are_read(tmp_path):
    ids = np.random.default_rng(0).integers(0, 4, (4, 5, 6)).astype(np.float64)
    path = save(tmp_path / "x.nii.gz", ids + 1e-6)
    labels, _ = read_label_volume(path)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, ids.transpose(2, 1, 0))
    save(path, ids[..., None])  # a fourth axis of length 1
    np.testing.assert_array_equal(read_label_volume(path)[0], ids.transpose(2, 1, 0))


# --- TIFF stacks and .npy -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_stacks_keep_their_values(tmp_path, dtype, suffix):
    values = np.random.default_rng(0).integers(0, 250, (3, 7, 9)).astype(dtype) * dtype(1.5)
    path = tmp_path / f"x{suffix}"
    write_volume(path, values, Geometry((3, 7, 9)))
    volume, geometry = read_volume(path)
    np.testing.assert_array_equal(volume[0], values)
    assert geometry == Geometry((3, 7, 9))


def test_colours_and_the_first_of_four_axes_are_channels(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    pages = [Image.fromarray(page) for page in colours]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    np.save(tmp_path / "x.npy", colours.transpose(3, 0, 1, 2))
    for name in ("x.tif", "x.npy"):
        volume, _ = read_volume(tmp_path / name, channels=3)
        np.testing.assert_array_equal(volume, colours.transpose(3, 0, 1, 2))


def save_pages(path, pages, description):
    """Saves pages [N, H, W] as a TIFF with a description."""
    pictures = [Image.fromarray(page) for page in pages]
    options = {"save_all": True, "append_images": pictures[1:], "tiffinfo": {270: description}}
    pictures[0].save(path, **options)
    return path


def ome(order, c, z, t):
    sizes = f'SizeC="{c}" SizeT="{t}" SizeX="6" SizeY="5" SizeZ="{z}"'
    pixels = f'<Pixels DimensionOrder="{order}" ID="Pixels:0" {sizes} Type="uint8"/>'
    return f'<?xml version="1.0"?><OME><Image ID="Image:0">{pixels}</Image></OME>'


@pytest.mark.parametrize(
    "order, description",
    [
        ("cz", "ImageJ=1.53t\nimages=8\nchannels=2\nslices=4\nhyperstack=true\nmin=0.0\n"),
        ("cz", "ImageJ=1.53t\nimages=8\nchannels=2\nframes=4\nhyperstack=true\n"),
        ("cz", ome("XYCZT", 2, 4, 1)),
        ("zc", ome("XYZCT", 2, 4, 1)),
        ("zc", ome("XYZTC", 2, 4, 1)),
    ],
    ids=["ImageJ", "ImageJ, frames", "XYCZT", "XYZCT", "XYZTC"],
)
def test_channels_of_a_hyperstack_are_channels(tmp_path, order, description):
    volume = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 6), dtype=np.uint8)
    pages = volume if order == "zc" else volume.swapaxes(0, 1)  # the last named varies slowest
    path = save_pages(tmp_path / "x.tif", pages.reshape(8, 5, 6), description)
    np.testing.assert_array_equal(read_volume(path)[0], volume)
    assert "is a label of 2 volumes" in error_of(read_label_volume, path)


@pytest.mark.parametrize(
    "description",
    ["", "made by hand", "ImageJ=1.53t\nimages=8\n", ome("XYCZT", 1, 1, 8)],
    ids=["none", "text", "ImageJ", "OME of times"],
)
def test_pages_of_other_stacks_are_slices(tmp_path, description):
    pages = np.random.default_rng(0).integers(0, 256, (8, 5, 6), dtype=np.uint8)
    path = save_pages(tmp_path / "x.tif", pages, description)
    np.testing.assert_array_equal(read_volume(path)[0], pages[None])


def test_a_picture_of_another_format_is_one_slice(tmp_path):
    page = np.random.default_rng(0).integers(0, 256, (5, 6), dtype=np.uint8)
    Image.fromarray(page).save(tmp_path / "x.tif", format="PNG")
    np.testing.assert_array_equal(read_volume(tmp_path / "x.tif")[0], page[None, None])


def test_times_and_missing_pages_of_a_hyperstack_are_refused(tmp_path):
    pages = np.zeros((8, 5, 6), np.uint8)
    description = "ImageJ=1.53t\nimages=8\nslices=4\nframes=2\nhyperstack=true\n"
    path = save_pages(tmp_path / "x.tif", pages, description)
    message = error_of(read_volume, path)
    assert message.startswith(f"{path}: holds 1 channels, 4 slices and 2 times; save the volume")
    path = save_pages(tmp_path / "x.tif", pages[:1], "ImageJ=1.53t\nimages=8\nslices=8\n")
    assert "names 1 channels, 8 slices and 1 times, but it has 1 pages" in error_of(
        read_volume, path
    )


def test_files_of_a_folder(tmp_path):
    for name in ("b.NII.gz", "a.tif", ".hidden.nii", "c.npy", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in volume_files(tmp_path)] == ["a.tif", "b.NII.gz", "c.npy"]
    assert volume_files(tmp_path / "none") == []


# --- files that cannot be used --------------------------------------------------------------------


def test_dicom_is_refused_by_name(tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    (series / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(50))
    for name in (series / "IM0001", tmp_path / "x.dcm"):
        name.touch()
        assert "is DICOM" in error_of(read_volume, name)
        assert "dcm2niix" in error_of(read_volume, name)
    assert f"{series / 'IM0001'}: is DICOM" in error_of(volume_files, series)


def test_nan_is_refused_with_its_number(tmp_path):
    values = random_values(4, 5, 6)
    values[0, 0, :3] = np.nan
    message = error_of(read_volume, save(tmp_path / "x.nii.gz", values))
    assert "x.nii.gz: holds 3 voxels that are NaN or infinite" in message
    assert "fractions or NaN" in error_of(read_label_volume, tmp_path / "x.nii.gz")


@pytest.mark.parametrize("keep", [0.5, 0.02])
@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.tif", "x.npy"])
def test_truncated_files_are_named(tmp_path, name, keep):
    path = tmp_path / name
    if "nii" in name:
        save(path, random_values(20, 20, 20))
    else:
        write_volume(path, random_values(20, 20, 20), Geometry((20, 20, 20)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    message = error_of(read_volume, path)
    assert message.startswith(f"{path}: cannot be read as a volume") and "\n" not in message


def test_numbers_beyond_float32_are_named_as_such(tmp_path):
    values = np.zeros((4, 5, 6))
    values[0, 0, :2] = 1e42, -1e42
    np.save(tmp_path / "x.npy", values)
    message = error_of(read_volume, tmp_path / "x.npy")
    assert "x.npy: holds 2 voxels beyond ±3.4e38, the range of float32" in message


def test_an_archive_is_no_array(tmp_path):
    np.savez(tmp_path / "x.npz", values=np.zeros((4, 5, 6)))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    assert "x.npy: is an archive (.npz); save one" in error_of(read_volume, tmp_path / "x.npy")


def test_damaged_gzip_and_other_files_are_named(tmp_path):
    path = save(tmp_path / "x.nii.gz", random_values(20, 20, 20))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert "cannot be read as a volume" in error_of(read_volume, path)
    path.write_bytes(gzip.compress(b"no volume" * 100))
    assert "cannot be read as a volume" in error_of(read_volume, path)
    assert "there is no such file" in error_of(read_volume, tmp_path / "y.nii")
    (tmp_path / "x.mha").touch()
    assert "save it as .nii.gz" in error_of(read_volume, tmp_path / "x.mha")


def test_labels_with_four_dimensions_fractions_or_wrong_ids_are_refused(tmp_path):
    path = tmp_path / "x.nii.gz"
    save(path, np.zeros((4, 5, 6, 2), np.uint8))
    assert "is a label of 2 volumes" in error_of(read_label_volume, path)
    save(path, np.full((4, 5, 6), 0.5, np.float32))
    assert "holds fractions" in error_of(read_label_volume, path)
    save(path, np.full((4, 5, 6), -1, np.int16))
    assert "holds -1 to -1; class ids are 0 to 65535" in error_of(read_label_volume, path)


def test_channels_axes_and_affines_that_do_not_fit_are_refused(tmp_path):
    path = save(tmp_path / "x.nii.gz", random_values(4, 5, 6))
    assert "has 1 channels, the model takes 2" in error_of(read_volume, path, 2)
    save(path, random_values(4, 5))
    assert "a volume has three axes" in error_of(read_volume, path)
    colours = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for values in (colours, random_values(4, 5, 6).astype(np.complex64)):
        save(path, values)
        assert "a volume holds real numbers" in error_of(read_volume, path)
        assert "a volume holds real numbers" in error_of(read_label_volume, path)
    np.save(tmp_path / "x.npy", random_values(4, 5))
    assert "float32 of shape (4, 5)" in error_of(read_volume, tmp_path / "x.npy")
    image = nibabel.Nifti1Image(random_values(4, 5, 6), AFFINE)
    image.header["srow_z"] = image.header["srow_y"] = 0
    image.header["qform_code"], image.header["sform_code"] = 0, 2
    nibabel.save(nibabel.Nifti1Image(random_values(4, 5, 6), None, image.header), path)
    assert "axis without length" in error_of(read_volume, path)


def test_image_and_label_must_lie_in_one_place(tmp_path):
    geometries = {}
    for name, values, affine in (
        ("image", random_values(4, 5, 6), AFFINE),
        ("rounded", random_values(4, 5, 6), AFFINE + 1e-7),
        ("other", random_values(4, 5, 7), AFFINE),
    ):
        path = save(tmp_path / f"{name}.nii.gz", values, affine)
        geometries[name] = read_volume(path)[1]
    moved = AFFINE.copy()
    moved[0, 3] += 3
    moved_path = save(tmp_path / "moved.nii.gz", random_values(4, 5, 6), moved)
    image = geometries["image"]
    check_same_space("rounded", geometries["rounded"], "image", image)
    check_same_space("stack", Geometry(image.shape), "image", Geometry(image.shape))
    message = error_of(check_same_space, "stack", Geometry(image.shape), "image", image)
    assert "stack: only one of it and its image image stores its orientation" in message
    message = error_of(check_same_space, "moved", read_volume(moved_path)[1], "image", image)
    assert "up to 3 mm away from those of its image image" in message
    message = error_of(check_same_space, "other", geometries["other"], "image", image)
    assert message == ("other: is 7×5×4 voxels, but its image image is 6×5×4; they must be equal")
    assert "is no NIfTI file" in error_of(
        write_volume, tmp_path / "y.nii", np.zeros((2, 2, 2), np.uint8), Geometry((2, 2, 2))
    )
