"""`fedvtc features`: parser and command."""

import argparse
from pathlib import Path

from fedvtc.commands.finished import add_run_arguments, checked_count, default_folder, new_folder
from fedvtc.commands.parsing import Parser, make_parser
from fedvtc.errors import EXIT_OK, count_of

ABOUT = """\
Computes the features of real test images and of generated images by the models of several clients, before and after the
last step of the method, such as fine-tuning, and their projections by PCA and t-SNE. `fedvtc report` shows the
projections, and real images beside generated ones."""

EXAMPLES = """\
examples:
  fedvtc features outputs/mine
  fedvtc features outputs/mine --clients 0,3 --points 4000
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc features`."""
    parser = make_parser("fedvtc features", ABOUT, EXAMPLES)
    add_run_arguments(parser, "eight clients, evenly spaced")
    output_help = "new folder; default: RUN/features, which a report shows"
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help=output_help)
    points_help = "points of a projection, at most; t-SNE takes a second for each 500; default: 2000"
    parser.add_argument("--points", type=int, default=2000, metavar="N", help=points_help)
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc features`; returns the exit code.

    Raises:
        UserError: the run is not finished or cannot be read, its data set is absent, or DIR cannot be written.
    """
    from fedvtc.commands.features.projecting import project
    from fedvtc.commands.features.sampling import sample, save_real_images
    from fedvtc.federation.finished import finished_run
    from fedvtc.storage.features import REAL_FILE, save_points

    output = default_folder(arguments, "features")
    num_points = checked_count("--points", arguments.points, least=1)
    with (
        finished_run(arguments.folder, arguments.words, trusted=arguments.trust) as opened,
        new_folder(output) as folder,
    ):
        save_real_images(opened, folder / REAL_FILE)
        sampled = sample(opened, clients=arguments.clients, num_points=num_points)
        save_points(folder, project(sampled, opened.config.run.seed))
    print(f"{output}: points.csv with {count_of(len(sampled.points), 'point')}, real.png")
    return EXIT_OK
