"""The label doctor: checks every file of a dataset and reports what training would read from it.

Errors are what training refuses, or what would make its scores wrong. Warnings are what a person
should check.
"""

from dataclasses import dataclass, field

import numpy as np

from train_utils.data.class_table import ClassTable
from train_utils.data.doctor_instances import check_label_kind, describe_unread
from train_utils.data.doctor_sample import Finding, check_sample
from train_utils.data.doctor_summary import DatasetSummary
from train_utils.data.problems import grouped
from train_utils.data.samples import DatasetFiles


@dataclass
class Report:
    """lines: the report. errors, warnings: messages. sheet: Findings for the contact sheet.

    Messages are Problems, or any strings.
    """

    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sheet: list[Finding] = field(default_factory=list)

    def text(self, every_problem: bool = False) -> str:
        """The whole report: lines, errors, warnings.

        Problems of one kind are one line, unless every_problem is set.
        """
        errors, warnings = self.errors, self.warnings
        if not every_problem:
            errors, warnings = grouped(errors), grouped(warnings)
        count = f"{len(self.errors)} errors, {len(self.warnings)} warnings"
        if len(errors) + len(warnings) < len(self.errors) + len(self.warnings):
            count += ", one line for each kind (--all prints each of them)"
        lines = [*self.lines, "", count]
        lines += [f"ERROR: {text}" for text in errors]
        lines += [f"warning: {text}" for text in warnings]
        return "\n".join(lines)


def check(
    files: DatasetFiles,
    table: ClassTable,
    channels: int = 3,
    max_pixels: int | None = None,
    sheet_size: int = 6,
    label_kind: str = "classes",
) -> Report:
    """Reads every file once, decoding labels with `table`, and returns a report.

    channels: of the images, see read_image(). max_pixels: largest image that is decoded; None:
    Pillow's limit. sheet_size: at most this many samples of each split are on the contact sheet.
    label_kind: "classes", or "instances" for labels with one id an object.
    """
    errors, warnings = check_label_kind(files, label_kind)
    report = Report(errors=files.problems + errors, warnings=files.notes + warnings)
    summary = DatasetSummary(table.names)
    for split, samples in files.splits.items():
        positions = np.linspace(0, max(len(samples) - 1, 0), sheet_size)
        on_sheet = {round(position) for position in positions}
        for i, sample in enumerate(samples):
            finding = check_sample(split, sample, table, channels, max_pixels, label_kind)
            report.errors += finding.errors
            report.warnings += finding.warnings
            summary.add(finding)
            if i in on_sheet and finding.image is not None and finding.target is not None:
                report.sheet.append(finding)
    report.lines += ["class table:", *(f"  {line}" for line in describe_table(table, label_kind))]
    for split, samples in files.splits.items():
        report.lines += summary.describe(split, len(samples))
        report.lines += describe_unread(samples, label_kind)
    report.lines += summary.suggest_flags()
    errors, warnings = summary.check_all()
    report.errors += errors
    report.warnings += warnings
    return report


def describe_table(table: ClassTable, label_kind: str) -> list[str]:
    """One line for each class: what is read as this class."""
    if label_kind == "classes":
        return table.describe()
    background, foreground = table.names
    return [f"0 {background}: id 0", f"1 {foreground}: every other id, one for each object"]
