"""`fedvtc submit`: its parser and command. Imports nothing heavy at the top."""

import argparse
from pathlib import Path

from fedvtc.commands.parsing import Parser, add_address, config_parser, load_config
from fedvtc.config.own_code import as_in_job
from fedvtc.errors import EXIT_OK

ABOUT = "Runs a federation as a job of a Ray cluster and follows its log. Resumes an earlier run of the same name."
EXAMPLES = """\
examples:
  fedvtc submit conf/experiment/digits.yaml run.name=mine run.output_dir=/mnt/shared/outputs
  fedvtc submit conf/experiment/digits.yaml run.output_dir=/mnt/shared/outputs --address http://HEAD:8265 --no-wait
  fedvtc submit conf/data/mnist.yaml run.output_dir=/mnt/shared/outputs --working-dir .
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc submit`."""
    parser = config_parser("submit", ABOUT, EXAMPLES)
    add_address(parser)
    parser.add_argument("--runtime-env", type=Path, metavar="FILE", help="a runtime environment of Ray, as YAML")
    parser.add_argument("--working-dir", type=Path, metavar="DIR", help="a folder that the job runs in a copy of")
    parser.add_argument("--no-wait", action="store_true", help="return after the submission")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc submit`.

    Returns:
        The exit code of the job; 0 with `--no-wait`, 130 after Ctrl-C.

    Raises:
        UserError: the config, an option or the cluster has a problem.
    """
    from fedvtc.commands import submit as submission

    runtime_env = submission.read_runtime_env(arguments.runtime_env) if arguments.runtime_env else None
    with as_in_job(submission.sent_folders(runtime_env, arguments.working_dir)):
        config = load_config(arguments.words)
    job = submission.submit(
        config, address=arguments.address, runtime_env=runtime_env, working_dir=arguments.working_dir
    )
    name = [] if config.run.name else [f"run.name={job.run}"]
    options = {
        "--address": arguments.address,
        "--runtime-env": arguments.runtime_env,
        "--working-dir": arguments.working_dir,
    }
    given = [str(part) for option, value in options.items() if value for part in (option, value)]
    words = [*arguments.words, *name, *given]
    print("\n".join(submission.advice(job, arguments.address, words, config.checkpoint.dir)), flush=True)
    return EXIT_OK if arguments.no_wait else submission.watch(job, arguments.address)
