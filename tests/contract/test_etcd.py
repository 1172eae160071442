"""What only etcd does: passwords, certificates, several servers, keys without a lease."""

import asyncio
import datetime
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.cluster.etcd_registry import EtcdRegistry
from app.errors import Busy, ConfigError
from app.sections import Etcd
from local.etcd import EtcdServer
from local.ports import free_ports
from tests.contract.registries import LEASE_S, TIMEOUT_S, call, etcd_options, ids, node, text
from tests.services import etcd

pytestmark = [pytest.mark.xdist_group("etcd"), pytest.mark.fault]


@asynccontextmanager
async def registry_of(options: Etcd, timeout_s: float = TIMEOUT_S) -> AsyncIterator[EtcdRegistry]:
    registry = EtcdRegistry(options, lease_s=LEASE_S, timeout_s=timeout_s)
    try:
        await registry.start()
        yield registry
    finally:
        await registry.stop()


@asynccontextmanager
async def an_etcd(folder: Path, **options: str) -> AsyncIterator[EtcdServer]:
    await etcd.running()  # skips where there is none
    server = EtcdServer(folder, {name.replace("_", "-"): value for name, value in options.items()})
    await server.start()
    yield server
    await server.stop()


async def test_a_password_is_needed_and_a_login_that_etcd_forgot_is_repeated(tmp_path: Path) -> None:
    async with an_etcd(tmp_path) as server:
        await call(server, "auth/user/add", name="root", password="secret")
        await call(server, "auth/user/add", name="magpie", password="word")
        await call(server, "auth/user/grant", user="root", role="root")
        await call(server, "auth/role/add", name="gateways")
        permission = {"permType": "READWRITE", "key": text("magpie/"), "range_end": text("magpie0")}
        await call(server, "auth/role/grant", name="gateways", perm=permission)
        await call(server, "auth/user/grant", user="magpie", role="gateways")
        await call(server, "auth/enable")
        for username, password in (("", ""), ("magpie", "wrong"), ("nobody", "word")):
            with pytest.raises(ConfigError, match=r"etcd refuses us; look at etcd\.username"):
                async with registry_of(etcd_options(server, username=username, password=password)):
                    pass
        with pytest.raises(ConfigError, match="permission denied"):
            async with registry_of(etcd_options(server, username="magpie", password="word", prefix="other/")):
                pass
        async with registry_of(etcd_options(server, username="magpie", password="word")) as registry:
            before = await registry.renew(node("a"))
            assert ids(before) == ["a"]
            server.kill()
            with pytest.raises(Busy):
                await registry.renew(node("a"))
            await server.start()
            assert await registry.renew(node("a")) == before
            await registry.leave(node("a"))
            assert ids(await registry.read()) == []


async def test_certificates_are_checked_both_ways(tmp_path: Path) -> None:
    certificate(tmp_path)
    files = {name: str(tmp_path / file) for name, file in (("cert_file", "own.pem"), ("key_file", "own.key"))}
    trusted = str(tmp_path / "own.pem")
    async with an_etcd(tmp_path / "etcd", **files, trusted_ca_file=trusted, client_cert_auth="true") as server:
        async with registry_of(etcd_options(server, ca_file=trusted, **files)) as registry:
            assert ids(await registry.renew(node("a"))) == ["a"]
        for options in (etcd_options(server), etcd_options(server, ca_file=trusted)):
            with pytest.raises(Busy):
                async with registry_of(options):
                    pass
    with pytest.raises(ConfigError, match=r"A certificate of etcd\.\*_file cannot be used: .*No such file"):
        async with registry_of(etcd_options(server, ca_file="/no/such/file")):
            pass


async def test_of_several_servers_one_is_enough(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    async with an_etcd(tmp_path) as frozen:
        server = await etcd.running()
        prefix = "several/"
        options = etcd_options(server, prefix=prefix, endpoints=[nobody, frozen.address, nobody, server.address])
        async with registry_of(options, timeout_s=3) as registry:
            await registry.read()
            frozen.freeze()
            with pytest.raises(Busy):
                await registry.renew(node("a"))
            assert ids(await registry.renew(node("a"))) == ["a"]
        frozen.thaw()
        async with registry_of(etcd_options(server, prefix=prefix)) as reader:
            assert ids(await reader.read()) == ["a"]


async def test_a_node_without_a_lease_holds_no_name(caplog: pytest.LogCaptureFixture) -> None:
    server = await etcd.running()
    left = node("a", "somebody")
    await call(server, "kv/put", key=text("byhand/nodes/a"), value=text(left.encode().decode()))
    async with registry_of(etcd_options(server, prefix="byhand/")) as registry:
        assert ids(await registry.read()) == []
        assert "registry_entries_ignored" in caplog.text
        assert (await registry.renew(node("a"))).nodes == (node("a"),)


async def test_a_lease_that_ended_is_taken_again(tmp_path: Path) -> None:
    server = await etcd.running()
    async with registry_of(etcd_options(server, prefix="ended/")) as registry:
        await registry.renew(node("a"))
        leases = (await call(server, "lease/leases"))["leases"]
        await asyncio.gather(*(call(server, "lease/revoke", ID=lease["ID"]) for lease in leases))
        assert ids(await registry.read()) == []
        assert ids(await registry.renew(node("a"))) == ["a"]


def certificate(folder: Path) -> None:
    """One that vouches for itself, for servers and clients: etcd's gateway is a client of etcd with the server's own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etcd")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "own.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "own.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
