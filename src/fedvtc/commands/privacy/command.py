"""`fedvtc privacy`: parser and command."""

import argparse
from pathlib import Path

from fedvtc.commands.finished import add_run_arguments, checked_count, default_folder
from fedvtc.commands.parsing import Parser, make_console, make_parser
from fedvtc.errors import EXIT_OK
from fedvtc.storage.privacy import PRIVACY_FOLDER

ABOUT = """\
Measures what a finished run reveals about training images: the distance of generated images to training images, the
success of an attack that recognises training images by the loss of a client's model, and images reconstructed from
prototypes."""

EXAMPLES = """\
examples:
  fedvtc privacy outputs/mine
  fedvtc privacy outputs/mine -o measured --images 200 --clients 0,3
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc privacy`."""
    parser = make_parser("fedvtc privacy", ABOUT, EXAMPLES)
    add_run_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="new folder; default: RUN/privacy")
    images_help = "generated images of each class to measure; default: 100"
    parser.add_argument("--images", type=int, default=100, metavar="N", help=images_help)
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc privacy`; returns the exit code.

    Raises:
        UserError: the run is not finished or cannot be read, its data set is absent, or DIR cannot be written.
    """
    from fedvtc.commands.privacy.files import measure_into, measures_table

    output = default_folder(arguments, PRIVACY_FOLDER)
    found = measure_into(
        output,
        arguments.folder,
        arguments.words,
        clients=arguments.clients,
        images_per_class=checked_count("--images", arguments.images, least=1),
        trusted=arguments.trust,
    )
    make_console().print(measures_table(found))
    print(f"{output}: privacy.json, clients.csv and pictures")
    return EXIT_OK
