"""A Kafka process."""

import asyncio
import shutil
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from local.kafka.cache import archive, formatted, listens, server_command
from local.kafka.settings import Listener, properties
from local.ports import free_ports
from local.server import LocalServer

ASK_TIMEOUT_MS = 2000


class KafkaServer(LocalServer):
    """Needs Java and Maven."""

    name = "Kafka"

    def __init__(self, folder: Path, beside: Listener | None = None) -> None:
        super().__init__(folder)
        self._beside = beside
        self._port, self._controller_port = free_ports(2)

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self._port}"

    def _prepare(self) -> list[str]:
        data = self._folder / "data"
        if not data.exists():
            data.mkdir(parents=True)
            for file in formatted().iterdir():
                shutil.copy(file, data)
        settings = self._folder / "server.properties"
        settings.write_text(properties(data, self._port, self._controller_port, self._beside))
        return server_command(settings, f"-XX:SharedArchiveFile={archive()}")

    async def _answers(self) -> bool:
        """Whether it takes requests and has become a member of its cluster."""
        client = AIOKafkaClient(bootstrap_servers=self.address, request_timeout_ms=ASK_TIMEOUT_MS)
        try:
            # aiokafka logs each attempt as an error; only look when somebody listens.
            if not await asyncio.to_thread(listens, self._port):
                return False
            await client.bootstrap()
            return bool(client.cluster.brokers())
        except KafkaError:
            return False
        finally:
            await client.close()
