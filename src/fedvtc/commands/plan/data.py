"""The data report in a plan: facts, images by class, and everything odd about the data."""

from fedvtc.learning.data import DataReport

_CLASSES_SHOWN = 12


def data_lines(report: DataReport) -> list[str]:
    """Returns a line of facts, a line on the images by class, and a line for each note."""
    return [f"Data: {report.facts}.", _classes_line(report), *(f"Data: {note}." for note in report.notes)]


def _classes_line(report: DataReport) -> str:
    train_C, test_C = report.train_counts_C, report.test_counts_C
    if len(report.class_names) <= _CLASSES_SHOWN:
        names = zip(report.class_names, train_C.tolist(), test_C.tolist(), strict=True)
        counts = ", ".join(f"{name} {train}/{test}" for name, train, test in names)
        return f"Data: training/test images by class: {counts}."
    return (
        f"Data: {train_C.min():,} to {train_C.max():,} training images and {test_C.min():,} to {test_C.max():,}"
        " test images by class."
    )
