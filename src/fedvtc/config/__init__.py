"""Config keys and their checks. No torch, Lightning or Ray, and no code that uses the config."""

from fedvtc.config.changes import changed_keys as changed_keys
from fedvtc.config.changes import check_equal_rounds as check_equal_rounds
from fedvtc.config.changes import check_resumable as check_resumable
from fedvtc.config.changes import fingerprint as fingerprint
from fedvtc.config.changes import rounds_key as rounds_key
from fedvtc.config.changes import same_place as same_place
from fedvtc.config.code_hash import changed_code as changed_code
from fedvtc.config.code_hash import code_hashes as code_hashes
from fedvtc.config.export import to_dict as to_dict
from fedvtc.config.export import to_yaml as to_yaml
from fedvtc.config.fields import FieldDoc as FieldDoc
from fedvtc.config.fields import field_docs as field_docs
from fedvtc.config.fields import grouped_docs as grouped_docs
from fedvtc.config.job_paths import check_submitted as check_submitted
from fedvtc.config.job_paths import lost_outputs as lost_outputs
from fedvtc.config.loading import load as load
from fedvtc.config.paths import absolute_paths as absolute_paths
from fedvtc.config.schema import Config as Config
from fedvtc.config.schema import MethodConfig as MethodConfig
from fedvtc.config.values import validate as validate
