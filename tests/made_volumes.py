"""Small synthetic volumes for tests: a box of each class, brighter than the background."""

import json

import nibabel
import numpy as np

CLASSES = {"0": "background", "1": "left", "2": "right"}


def draw(seed, size=(14, 20, 16), classes=3):
    """(image float32, label uint8) [X, Y, Z]; the places depend on the seed."""
    rng, label = np.random.default_rng(seed), np.zeros(size, np.uint8)
    for index in range(1, classes):
        start = [int(rng.integers(1, side - 8)) for side in size]
        label[tuple(slice(first, first + 7) for first in start)] = index
    image = 100.0 * seed + 50.0 * label + rng.normal(0, 5, size)
    return image.astype(np.float32), label


def save(path, values, spacing=(1.0, 1.0, 1.0), affine=None):
    """Saves [X, Y, Z] values as NIfTI with voxels of this size (X, Y, Z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(
        nibabel.Nifti1Image(values, np.diag([*spacing, 1]) if affine is None else affine), path
    )
    return path


def write_decathlon(root, count=8, test=1, spacings=None, **options):
    """Writes imagesTr/, labelsTr/, imagesTs/ and dataset.json to root; returns root.

    spacings: {number: spacing} of volumes with other voxels than 1 mm. options: of draw().
    """
    training = []
    for number in range(count):
        image, label = draw(number, **options)
        spacing = (spacings or {}).get(number, (1.0, 1.0, 1.0))
        name = f"v{number:02d}.nii.gz"
        save(root / "imagesTr" / name, image, spacing)
        save(root / "labelsTr" / name, label, spacing)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    for number in range(test):
        save(root / "imagesTs" / f"t{number}.nii.gz", draw(100 + number, **options)[0])
    content = {"labels": CLASSES, "training": training}
    content["test"] = [f"./imagesTs/t{number}.nii.gz" for number in range(test)]
    (root / "dataset.json").write_text(json.dumps(content))
    return root
