"""`fedvtc submit`: parser and command."""

import argparse
from pathlib import Path

from fedvtc.commands.parsing import Parser, add_address, config_parser, load_config
from fedvtc.errors import EXIT_OK

SUBMIT = """\
examples:
  fedvtc submit conf/experiment/digits.yaml run.name=mine run.output_dir=/mnt/shared/outputs
  fedvtc submit conf/experiment/digits.yaml run.output_dir=/mnt/shared/outputs --address http://HEAD:8265 --no-wait
  fedvtc submit conf/data/mnist.yaml run.output_dir=/mnt/shared/outputs --runtime-env jobs/runtime_env.yaml
"""


def parser() -> Parser:
    """Parses the words of `fedvtc submit`."""
    about = "Runs a federation as a job of a Ray cluster, and follows its log. A run that the cluster has had goes on."
    parser = config_parser("submit", about, SUBMIT)
    add_address(parser)
    parser.add_argument("--runtime-env", type=Path, metavar="FILE", help="a runtime environment of Ray, as YAML")
    parser.add_argument("--working-dir", type=Path, metavar="DIR", help="a folder that the job runs in a copy of")
    parser.add_argument("--no-wait", action="store_true", help="return once it is submitted")
    parser.add_argument("--debug", action="store_true", help="show where in the code a mistake was noticed")
    parser.set_defaults(command=_submit)
    return parser


def _submit(words: argparse.Namespace) -> int:
    config = load_config(words.words)
    from fedvtc.commands import submit as submission

    runtime_env = submission.read_runtime_env(words.runtime_env) if words.runtime_env else None
    job = submission.submit(config, address=words.address, runtime_env=runtime_env, working_dir=words.working_dir)
    named = [] if config.run.name else [f"run.name={job.run}"]
    options = {"--address": words.address, "--runtime-env": words.runtime_env, "--working-dir": words.working_dir}
    given = [str(word) for option, value in options.items() if value for word in (option, value)]
    lines = submission.advice(job, words.address, [*words.words, *named, *given], config.checkpoint.dir)
    print("\n".join(lines), flush=True)
    return EXIT_OK if words.no_wait else submission.watch(job, words.address)
