"""Imports point one way, without circles; flags are read in the scripts and train_utils/cli alone.

Read from the syntax trees of all sources. A package's __init__.py is a module like the others: that
Python runs it before the modules below it is not an import of theirs.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPTS = {"train", "train_multi_GPU", "predict", "compute_mean_std"}
LOOP = {"train_and_eval", "resume", "lr_scheduler", "dice_coefficient_loss", "data_loader"}
LOOP |= {"evaluation", "held_out"}


def module_name(path):
    """src/unet.py → src.unet, src/__init__.py → src."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_sources():
    """{module: (path, syntax tree)} of all sources but the tests."""
    paths = [*ROOT.glob("*.py"), *ROOT.glob("src/**/*.py"), *ROOT.glob("train_utils/**/*.py")]
    return {module_name(path): (path, ast.parse(path.read_text())) for path in sorted(paths)}


SOURCES = read_sources()


def imported_names(module):
    """The full names that a module imports anywhere, such as src.unet.UNet."""
    path, tree = SOURCES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def own_imports(module):
    """The modules of this project that a module imports."""
    found = set()
    for name in imported_names(module):
        if name not in SOURCES:  # the name of something in a module
            name = name.rpartition(".")[0]
        if name in SOURCES:
            found.add(name)
    return found


GRAPH = {module: own_imports(module) for module in SOURCES}


def below(package):
    """The modules of a package."""
    return {name for name in SOURCES if name == package or name.startswith(f"{package}.")}


def imports_of(modules):
    """{(module, import)} of several modules."""
    return {(module, name) for module in modules for name in GRAPH[module]}


def test_the_sources_are_found():
    assert {*SCRIPTS, "my_dataset", "transforms", "src.unet", "train_utils.metrics"} <= set(SOURCES)
    assert "src.blocks" in GRAPH["src.unet"] and "src.image_io" in GRAPH["my_dataset"]
    assert {"train", "train_utils.distributed_utils"} <= GRAPH["train_multi_GPU"]


def test_src_imports_nothing_of_ours():
    assert {pair for pair in imports_of(below("src")) if pair[1] not in below("src")} == set()


def test_transforms_imports_only_src():
    assert GRAPH["transforms"] <= below("src")


def test_train_utils_is_handed_datasets_transforms_and_flags():
    allowed = below("src") | below("train_utils")
    assert {pair for pair in imports_of(below("train_utils")) if pair[1] not in allowed} == set()


def test_modules_of_train_utils_import_modules_not_the_re_exports():
    importing = {module for module in below("train_utils") if "train_utils" in GRAPH[module]}
    assert importing == set()
    assert GRAPH["train_utils"].isdisjoint(
        below("train_utils.cli") | below("train_utils.reporting")
    )


def test_only_scripts_know_the_command_lines():
    """Modules of train_utils outside cli/ import nothing of it."""
    pairs = imports_of(below("train_utils") - below("train_utils.cli"))
    assert {pair for pair in pairs if pair[1] in below("train_utils.cli")} == set()


def test_my_dataset_imports_how_data_is_read_and_its_command_line():
    allowed = below("src") | below("train_utils.data")
    allowed |= {"train_utils.distributed_utils", "train_utils.cli.check_dataset"}
    assert GRAPH["my_dataset"] <= allowed


def test_predict_imports_no_dataset_and_no_training():
    forbidden = SCRIPTS | {"my_dataset"} | {f"train_utils.{name}" for name in LOOP}
    assert GRAPH["predict"].isdisjoint(forbidden)


def test_predict_imports_no_matplotlib():
    command = "import predict, sys; assert 'matplotlib' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, env=environment, check=True)


def test_only_train_multi_gpu_imports_a_script():
    pairs = {pair for pair in imports_of(SOURCES) if pair[1] in SCRIPTS}
    assert pairs == {("train_multi_GPU", "train")}


def find_circle(module, finished, path=()):
    """The modules of a circle of imports that `module` leads to, or None."""
    if module in path:
        return [*path[path.index(module) :], module]
    if module in finished:
        return None
    for name in sorted(GRAPH[module]):
        circle = find_circle(name, finished, (*path, module))
        if circle:
            return circle
    finished.add(module)
    return None


def test_there_is_no_circle_of_imports():
    finished = set()
    assert [find_circle(module, finished) for module in sorted(GRAPH)] == [None] * len(GRAPH)


# --- flags ---------------------------------------------------------------------------------------


def attributes_of_args(module, kind):
    """["args.x", …] that a module reads (ast.Load) or writes (ast.Store)."""
    return [
        f"args.{node.attr}"
        for node in ast.walk(SOURCES[module][1])
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "args"
        and isinstance(node.ctx, kind)
    ]


def test_flags_are_read_in_the_scripts_and_the_command_lines_alone():
    others = set(SOURCES) - SCRIPTS - below("train_utils.cli")
    read = {module: attributes_of_args(module, ast.Load) for module in others}
    assert {module: names for module, names in read.items() if names} == {}
    assert attributes_of_args("train", ast.Load)


def test_nothing_writes_to_the_flags_after_parsing():
    others = set(SOURCES) - below("train_utils.cli")
    written = {module: attributes_of_args(module, (ast.Store, ast.Del)) for module in others}
    assert {module: names for module, names in written.items() if names} == {}
    assert [name for name in others if "setattr(args" in SOURCES[name][0].read_text()] == []
