"""The config: YAML files and `key=value` overrides over frozen dataclasses. Nothing heavy is imported here."""

from fedvtc.config.changes import check_resumable as check_resumable
from fedvtc.config.changes import fingerprint as fingerprint
from fedvtc.config.changes import same_place as same_place
from fedvtc.config.docs import FieldDoc as FieldDoc
from fedvtc.config.docs import field_docs as field_docs
from fedvtc.config.export import to_dict as to_dict
from fedvtc.config.export import to_yaml as to_yaml
from fedvtc.config.job_paths import check_submitted as check_submitted
from fedvtc.config.job_paths import lost_outputs as lost_outputs
from fedvtc.config.loading import load as load
from fedvtc.config.schema import Config as Config
from fedvtc.config.schema import MethodConfig as MethodConfig
from fedvtc.config.values import validate as validate
