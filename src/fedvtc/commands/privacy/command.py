"""`fedvtc privacy`: parser and command."""

import argparse
from pathlib import Path

from fedvtc.commands.finished import add_run_arguments, checked_count, default_folder, new_folder
from fedvtc.commands.parsing import Parser, make_console, make_parser
from fedvtc.errors import EXIT_OK

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
    from fedvtc.commands.privacy.files import measures_table, save
    from fedvtc.commands.privacy.measuring import measure
    from fedvtc.federation.finished import finished_run

    output = default_folder(arguments, "privacy")
    num_images = checked_count("--images", arguments.images, least=1)
    with (
        finished_run(arguments.folder, arguments.words, trusted=arguments.trust) as opened,
        new_folder(output) as folder,
    ):
        found = measure(opened, clients=arguments.clients, images_per_class=num_images)
        save(found, opened, folder)
    make_console().print(measures_table(found))
    print(f"{output}: privacy.json, clients.csv and pictures")
    return EXIT_OK
