"""Where a score comes from: the names of processor and precision."""

import platform

import pytest
import torch

from train_utils.reporting.provenance import machine_name, precision_name, processor_name


def test_the_processor_is_named_by_its_model(tmp_path):
    info = tmp_path / "cpuinfo"
    core = "processor\t: {}\nmodel\t\t: 143\nmodel name\t: Some Maker (R) Model 9000 @ 2GHz\n\n"
    info.write_text(core.format(0) + core.format(1))
    assert processor_name(info) == "Some Maker (R) Model 9000 @ 2GHz"


@pytest.mark.parametrize("text", [None, "", "model name\t: \nflags\t: fpu\n", "Features: fp\n"])
def test_where_the_system_does_not_tell_it_is_the_architecture(tmp_path, text):
    info = tmp_path / "cpuinfo"
    if text is not None:
        info.write_text(text)
    assert processor_name(info) == (platform.processor() or platform.machine()) != ""


def test_the_machine_has_its_threads():
    threads = torch.get_num_threads()
    noun = "thread" if threads == 1 else "threads"
    name = machine_name(torch.device("cpu"))
    assert name == f"{processor_name()}, {threads} {noun}"


@pytest.mark.parametrize(
    "dtype, name", [(None, "float32"), (torch.bfloat16, "bfloat16"), (torch.float16, "float16")]
)
def test_precision(dtype, name):
    assert precision_name(dtype) == name
