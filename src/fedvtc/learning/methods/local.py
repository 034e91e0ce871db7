"""Local: every client trains alone. The baseline of every comparison."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods.base import ConfigT, Method, ServerState

if TYPE_CHECKING:
    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.server import Server


@section
class LocalConfig(MethodConfig):
    """The keys of every method and no others."""

    name: str = "local"


class LocalRounds(Method[ConfigT]):
    """Rounds of local training without messages, for methods that exchange values after the last round alone."""

    sends_in_rounds = False

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains on the client's own images; uploads measurements alone."""
        client.train()
        return client.upload()

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Returns the state unchanged and an empty broadcast of the round."""
        round = max(upload.round for upload in uploads)
        return state, Broadcast(round)


class Local(LocalRounds[LocalConfig]):
    """Local training without messages."""

    config_class = LocalConfig


METHOD = Local
