"""README, --help and the results page agree with the code: paths, flags, models, scores."""

import functools
import json
import re
from pathlib import Path

import pytest

from tests.processes import python

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / ".github/results/README.md"
PAGES = pytest.mark.parametrize("page", [README, RESULTS], ids=["README", "results"])

# The top level is the user's and is fixed; beside it there are only dot files.
SCRIPTS = {"train.py", "train_multi_GPU.py", "predict.py", "compute_mean_std.py"}
TOP_LEVEL_FILES = SCRIPTS | {
    "transforms.py",
    "my_dataset.py",
    "requirements.txt",
    "README.md",
    "LICENSE",
}
SOURCE_FOLDERS = {
    "src",
    "train_utils",
    "train_utils/cli",
    "train_utils/data",
    "train_utils/reporting",
    "tests",
    "tests/benchmarks",
}


@functools.cache
def output_of(*arguments):
    """What `python ARGUMENTS` prints, in lines wide enough that argparse wraps no help text."""
    finished = python(*arguments, COLUMNS="2000")
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def flags_in_help(text):
    """{flag with its metavars as --help shows it: its help text}."""
    entries = re.findall(r"^  (-\S.*?)(?:  +|\n {10,}|$)(\S.*)?$", text, re.MULTILINE)
    return dict(entries)


@functools.cache
def known_flags():
    """Every flag of the scripts and of torchrun."""
    helps = [output_of(script, "--help") for script in sorted(SCRIPTS)]
    helps.append(output_of("my_dataset.py", "check", "--help"))
    helps.append(output_of("-m", "torch.distributed.run", "--help"))
    return set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", "\n".join(helps)))


def is_on_off(invocation):
    """Whether a flag of --help takes no value: `--amp, --no-amp` or `--demo`, but not `--lr LR`."""
    return " " not in invocation.replace(", ", ",")


# --- --help ------------------------------------------------------------------------------------


def test_every_flag_of_train_has_a_help_text_and_shows_its_default():
    flags = flags_in_help(output_of("train.py", "--help"))
    assert len(flags) > 40
    without_text = [flag for flag, text in flags.items() if not text]
    without_default = [
        flag
        for flag, text in flags.items()
        if not is_on_off(flag) and not re.search(r"\bdefault: \S", text)
    ]
    assert not without_text
    assert not without_default


def test_both_training_scripts_have_the_same_flags():
    one, several = (
        flags_in_help(output_of(script, "--help")) for script in ("train.py", "train_multi_GPU.py")
    )
    assert one == several


# --- the source tree ---------------------------------------------------------------------------


def ignored_folders():
    """Top-level folders that .gitignore names: data and outputs of users."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    return {line.strip("/") for line in lines}


def test_the_top_level_has_no_other_file():
    files = {path.name for path in ROOT.iterdir() if path.is_file()}
    assert {name for name in files if not name.startswith(".")} == TOP_LEVEL_FILES


def test_there_is_no_other_folder_with_source():
    top = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    with_source = {
        path.parent.relative_to(ROOT).as_posix()
        for folder in top
        if folder.name not in ignored_folders() and any(folder.glob("*.py"))
        for path in folder.rglob("*.py")
    }
    assert with_source == SOURCE_FOLDERS


# --- README and the results page ---------------------------------------------------------------


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 250


def test_every_source_path_in_the_readme_exists():
    text = README.read_text(encoding="utf-8")
    files = set(re.findall(r"[\w./-]*\w\.py\b", text))
    folders = set(re.findall(r"(?<![\w./])(?:src|train_utils|tests|\.github)/(?:\w+/)*", text))
    modules = set(re.findall(r"-m (tests[\w.]+)", text))
    modules = {name.replace(".", "/") + "/__main__.py" for name in modules}
    assert len(files) > 15
    missing = [path for path in files | folders | modules if not (ROOT / path).exists()]
    assert not missing


def test_names_stand_in_the_files_that_the_readme_names():
    pairs = re.findall(r"`(\w+)` (?:in|of `\w+` in) `([\w/]+\.py)`", README.read_text("utf-8"))
    assert len(pairs) > 5
    for name, path in pairs:
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8")), (name, path)


@PAGES
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
            assert anchor in anchors, link


@PAGES
def test_every_flag_on_the_page_exists(page):
    text = page.read_text(encoding="utf-8")
    slurm = {"--ntasks-per-node"}
    flags = set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", text)) - slurm
    assert flags <= known_flags()


def test_scores_in_the_readme_are_on_the_results_page():
    scores = re.findall(r"(?<![\w.])\.\d{3,4}\b", README.read_text(encoding="utf-8"))
    published = set(re.findall(r"(?<![\w.])\.\d{3,4}\b", RESULTS.read_text(encoding="utf-8")))
    assert len(scores) > 30
    assert set(scores) <= published


def test_commits_in_the_results_table_are_those_of_the_files():
    """Each row of README's table names the commit of a published run."""
    files = (ROOT / ".github/results").glob("*.json")
    commits = {json.loads(path.read_text(encoding="utf-8"))["commit"][:7] for path in files}
    named = re.findall(r"\| ([0-9a-f]{7}) \|", README.read_text(encoding="utf-8"))
    assert named
    assert set(named) <= commits


def test_the_table_of_architectures_has_what_list_models_prints():
    cells = r"^\| `(\w+)` \|.*\| ([\d,]+) \| ([\d.]+ G) \|$"
    table = re.findall(cells, RESULTS.read_text(encoding="utf-8"), re.MULTILINE)
    printed = re.findall(
        r"^(\w+) +([\d,]+) +([\d.]+ G)", output_of("train.py", "--list-models"), re.MULTILINE
    )
    assert printed
    printed = [row for row in printed if row[0] != "unet_3d"]  # the table is of scores on images
    assert sorted(table) == sorted(printed)


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/results").glob("*.json")), ids=lambda path: path.stem
)
def test_published_scores_are_those_of_their_counts_and_are_quoted(path):
    """Pooled F1 (two classes) or mean IoU, computed again from the images' rows, is on the page."""
    published = json.loads(path.read_text(encoding="utf-8"))
    quoted = published["scores"]["mean_iou"]
    if len(published["scores"]["dice_per_class"]) == 2:
        true_pos, false_pos, false_neg = (
            sum(row[name] for row in published["images"]) for name in ("tp", "fp", "fn")
        )
        quoted = 2 * true_pos / (2 * true_pos + false_pos + false_neg)
        assert published["scores"]["f1"] == pytest.approx(quoted, abs=1e-9)
    row = rf"`{path.stem}\.json` .*\| {quoted:.4f} \|".replace(" 0.", r" \.")
    assert re.search(row, RESULTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("runs", ["hippocampus_fold", "hippocampus_planned_fold"])
def test_the_dice_of_the_hippocampus_is_the_mean_of_the_published_volumes(runs):
    files = sorted((ROOT / ".github/results").glob(f"{runs}*.json"))
    rows = [row for path in files for row in json.loads(path.read_text(encoding="utf-8"))["images"]]
    assert len(rows) == len({row["name"] for row in rows}) == 260
    means = []
    for part in range(2):
        hits, errors = (
            [sum(row[name][part] for name in names) for row in rows]
            for names in (["tp", "tp"], ["fp", "fn"])
        )
        dice = [hit / (hit + error) for hit, error in zip(hits, errors, strict=True)]
        means.append(f"**{sum(dice) / len(dice):.4f}**".replace("0.", "."))
    line = rf"\| \*\*all\*\* \| 260 \| {re.escape(means[0])} .* \| {re.escape(means[1])} "
    assert re.search(line, RESULTS.read_text(encoding="utf-8"))
