"""`fedvtc export`: parser and command."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from fedvtc.commands.finished import add_run_arguments, checked_count, default_folder, new_folder
from fedvtc.commands.parsing import Parser, make_parser
from fedvtc.errors import EXIT_OK, UserError

ABOUT = """\
Exports a finished run for use without fedvtc: the models of the clients as safetensors with a description each, their
architectures as programs of torch.export, the generators, the last broadcast, and a set of generated images with a data
card. docs/export.md shows how to load them."""

EXAMPLES = """\
examples:
  fedvtc export outputs/mine
  fedvtc export outputs/mine -o exported --clients 0,3 --images 500
  fedvtc export outputs/mine --onnx
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc export`."""
    parser = make_parser("fedvtc export", ABOUT, EXAMPLES)
    add_run_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="new folder; default: RUN/export")
    images_help = "generated images of each class; default: 100; 0 leaves the set out"
    parser.add_argument("--images", type=int, default=100, metavar="N", help=images_help)
    parser.add_argument("--onnx", action="store_true", help="also write each model as ONNX; needs fedvtc[onnx]")
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc export`; returns the exit code.

    Raises:
        UserError: the run is not finished or cannot be read, its data set is absent, DIR cannot be written, or
            packages for ONNX are absent.
    """
    from fedvtc.commands.export.export import export_run
    from fedvtc.federation.finished import finished_run

    output = default_folder(arguments, "export")
    num_images = checked_count("--images", arguments.images, least=0)
    if arguments.onnx:
        _check_onnx()
    # Programs and weights of a GPU would not load without one.
    words = [*arguments.words, "placement.accelerator=cpu"]
    with finished_run(arguments.folder, words, trusted=arguments.trust) as opened, new_folder(output) as folder:
        lines = export_run(opened, folder, clients=arguments.clients, images_per_class=num_images, onnx=arguments.onnx)
    print("\n".join([f"{output}:", *lines]))
    return EXIT_OK


def _check_onnx() -> None:
    """Raises a UserError if a package that torch.onnx needs is not installed."""
    for name in ("onnx", "onnxscript"):
        if find_spec(name) is None:
            raise UserError(f"--onnx: {name} is not installed. Install fedvtc[onnx].")
