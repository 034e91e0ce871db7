"""The table of commands: `fedvtc --help` prints the summaries, `main` calls the parser of the given command."""

from dataclasses import dataclass
from importlib import import_module

from fedvtc.commands.parsing import Parser


@dataclass(frozen=True)
class Command:
    """One command of the program.

    Attributes:
        summary: the command's line in `fedvtc --help`.
        entry: `module:function` in this package; the function takes nothing and returns the command's parser.
    """

    summary: str
    entry: str

    def parser(self) -> Parser:
        """Imports the command's module and returns the parser.

        A command imports its own module only, so help is fast and `fedvtc doctor` runs with a package missing.
        """
        module, _, function = self.entry.partition(":")
        parser: Parser = getattr(import_module(f"{__package__}.{module}"), function)()
        return parser


COMMANDS = {
    "run": Command("run a federation and write a run folder", "run:run_parser"),
    "resume": Command("resume a run that was stopped or killed", "run:resume_parser"),
    "submit": Command("run a federation as a job on a Ray cluster", "submit.command:parser"),
    "sweep": Command("run many federations from one file and compare the results", "sweep.command:parser"),
    "table": Command("make a table of runs: means over seeds, for the terminal or a paper", "table:parser"),
    "plan": Command("show config, partition, traffic and memory of a run without training", "plan.command:parser"),
    "list": Command(
        "list runs, cluster jobs, shipped configs, data sets, backbones or methods", "listing.command:parser"
    ),
    "show": Command("show one run: status, accuracy, seconds by phase, incidents", "show:parser"),
    "watch": Command("show the progress of a sweep", "watch:parser"),
    "report": Command("write a page and figures of runs, to read offline or to print", "report.command:parser"),
    "export": Command("export models and generated images of a run, to use without fedvtc", "export.command:parser"),
    "evaluate": Command("evaluate the models of a run on other test sets", "evaluate.command:parser"),
    "privacy": Command("measure what a run reveals about training images", "privacy.command:parser"),
    "features": Command("project features of real and generated images, for a report", "features.command:parser"),
    "init": Command("write a project with a method of your own", "init.command:parser"),
    "doctor": Command("check this machine, or a run folder, for problems", "doctor.command:parser"),
}
"""Commands by name, in the order of `fedvtc --help`."""
