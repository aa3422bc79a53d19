"""The label doctor: checks every file of a dataset and reports what training would read from it.

Errors are what training refuses, or what would make its scores wrong. Warnings are what a person
should check.
"""

from dataclasses import dataclass, field

import numpy as np

from train_utils.data.class_table import ClassTable
from train_utils.data.doctor_sample import Finding, check_sample
from train_utils.data.doctor_summary import DatasetSummary
from train_utils.data.samples import DatasetFiles


@dataclass
class Report:
    """lines: the report. errors, warnings: messages. sheet: Findings for the contact sheet."""

    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sheet: list[Finding] = field(default_factory=list)

    def text(self) -> str:
        """The whole report: lines, errors, warnings."""
        lines = [*self.lines, "", f"{len(self.errors)} errors, {len(self.warnings)} warnings"]
        lines += [f"ERROR: {text}" for text in self.errors]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)


def check(
    files: DatasetFiles,
    table: ClassTable,
    channels: int = 3,
    max_pixels: int | None = None,
    sheet_size: int = 6,
) -> Report:
    """Reads every file once, decoding labels with `table`, and returns a report.

    channels: of the images, see read_image(). max_pixels: largest image that is decoded; None:
    Pillow's limit. sheet_size: at most this many samples of each split are on the contact sheet.
    """
    report = Report(errors=list(files.problems))
    summary = DatasetSummary(table.names)
    for split, samples in files.splits.items():
        positions = np.linspace(0, max(len(samples) - 1, 0), sheet_size)
        on_sheet = {round(position) for position in positions}
        for i, sample in enumerate(samples):
            finding = check_sample(split, sample, table, channels, max_pixels)
            report.errors += finding.errors
            report.warnings += finding.warnings
            summary.add(finding)
            if i in on_sheet and finding.image is not None and finding.target is not None:
                report.sheet.append(finding)
    report.lines += ["class table:", *(f"  {line}" for line in table.describe())]
    for split, samples in files.splits.items():
        report.lines += summary.describe(split, len(samples))
    report.lines += summary.suggest_flags()
    errors, warnings = summary.check_all()
    report.errors += errors
    report.warnings += warnings
    return report
