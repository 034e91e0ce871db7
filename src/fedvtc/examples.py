"""The examples in the help of each command."""

ALL = """\
examples:
  fedvtc run                                                 the defaults: digits, 8 clients, no download
  fedvtc run run.rounds=3 partition.alpha=0.5                with other values
  fedvtc run conf/data/mnist.yaml conf/population/cnn4.yaml  from files, merged left to right
  fedvtc plan conf/data/cifar10.yaml                         who would hold what, and whether it fits
  fedvtc resume outputs/mine                                 goes on with a run that was stopped or lost
  fedvtc submit conf/experiment/digits.yaml run.output_dir=/mnt/shared/outputs    as a job of a cluster
  fedvtc list                                                the runs under ./outputs
  fedvtc doctor                                              whether a run would work here
"""

RUN = """\
examples:
  fedvtc run conf/experiment/digits.yaml
  fedvtc run conf/experiment/digits.yaml conf/method/local.yaml run.seed=1
  fedvtc run conf/data/mnist.yaml conf/population/cnn4.yaml population.num_clients=40 run.participation=0.25
  fedvtc run conf/cluster/inline.yaml run.rounds=2 'population.backbones=[{name: cnn_2x16, share: 1}]'
"""

RESUME = """\
examples:
  fedvtc resume outputs/mine
  fedvtc resume outputs/mine run.rounds=40 placement.clients_per_actor=2
"""

PLAN = """\
examples:
  fedvtc plan conf/data/mnist.yaml partition.alpha=0.1 population.num_clients=40
  fedvtc plan conf/data/mnist.yaml --picture partition.png
  fedvtc plan conf/data/mnist.yaml --print-config > mine.yaml
"""

DOCTOR = """\
examples:
  fedvtc doctor
  fedvtc doctor outputs/mine
"""

LIST = """\
examples:
  fedvtc list
  fedvtc list runs outputs/mnist outputs/demo
  fedvtc list backbones
  fedvtc list --cluster --address http://HEAD:8265
"""

SUBMIT = """\
examples:
  fedvtc submit conf/experiment/digits.yaml run.name=mine run.output_dir=/mnt/shared/outputs
  fedvtc submit conf/experiment/digits.yaml run.output_dir=/mnt/shared/outputs --address http://HEAD:8265 --no-wait
  fedvtc submit conf/data/mnist.yaml run.output_dir=/mnt/shared/outputs --runtime-env jobs/runtime_env.yaml
"""

SWEEP = """\
examples:
  fedvtc sweep conf/sweep/digits_quick.yaml
  fedvtc sweep conf/sweep/mnist_methods.yaml run.rounds=20 cluster.address=auto
  fedvtc sweep conf/sweep/mnist_methods.yaml --print
  fedvtc sweep conf/sweep/mnist_methods.yaml run.output_dir=/mnt/shared/outputs --executor jobs
  fedvtc sweep conf/sweep/mnist_methods.yaml --results
"""
