"""`fedvtc run` and `fedvtc resume`: parsers and commands."""

import argparse
from pathlib import Path

from fedvtc.commands.parsing import (
    Parser,
    add_help_with_keys,
    config_parser,
    load_config,
    make_parser,
    resume_keys_help,
)
from fedvtc.errors import EXIT_OK
from fedvtc.reporting.lines import say
from fedvtc.runtime.heavy_imports import fast_imports

RUN = """\
examples:
  fedvtc run conf/experiment/digits.yaml
  fedvtc run conf/experiment/digits.yaml conf/method/local.yaml run.seed=1
  fedvtc run conf/data/mnist.yaml conf/population/cnn4.yaml population.num_clients=40 run.participation=0.25
  fedvtc run conf/experiment/mnist_dir01.yaml conf/method/fedcvae.yaml --start-from outputs/local
  fedvtc run conf/cluster/inline.yaml run.rounds=2 'population.backbones=[{name: cnn_2x16, share: 1}]'
"""

RESUME = """\
examples:
  fedvtc resume outputs/mine
  fedvtc resume outputs/mine run.rounds=40 placement.clients_per_actor=2
"""


def run_parser() -> Parser:
    """Makes the parser of `fedvtc run`."""
    parser = config_parser("run", "Runs a federation and writes its run folder.", RUN)
    _add_run_options(parser)
    text = "take over the rounds of this run instead of computing equal rounds again"
    parser.add_argument("--start-from", type=Path, metavar="RUN", help=text)
    parser.set_defaults(command=_run)
    return parser


def resume_parser() -> Parser:
    """Makes the parser of `fedvtc resume`."""
    about = "Resumes a run from its newest whole checkpoint. A finished run stays as it is."
    parser = make_parser("fedvtc resume", about, RESUME, add_help=False)
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("words", nargs="*", metavar="key=value", help="keys that may change, listed below")
    add_help_with_keys(parser, "show this help and every config key that may change", resume_keys_help)
    _add_run_options(parser)
    parser.set_defaults(command=_resume)
    return parser


def _add_run_options(parser: Parser) -> None:
    parser.add_argument("--plain", action="store_true", help="one line per round, no live table")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    parser.add_argument("--trust", action="store_true", help="resume a run folder that belongs to another user")


def _run(words: argparse.Namespace) -> int:
    config = load_config(words.words, imports=True)
    if config.placement.pool != "inline":
        # At once, because the next imports take seconds, and Ray and its actors take more.
        say(f"loading PyTorch and the data set {config.data.name}")
    with fast_imports():
        from fedvtc.federation.launch import run_federation

    run_federation(config, plain=words.plain, trusted=words.trust, owns_process=True, start_from=words.start_from)
    return EXIT_OK


def _resume(words: argparse.Namespace) -> int:
    with fast_imports():
        from fedvtc.federation.resume import resume_federation

    resume_federation(words.folder, words.words, plain=words.plain, trusted=words.trust, owns_process=True)
    return EXIT_OK
