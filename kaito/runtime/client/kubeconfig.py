"""Loads kubeconfig files with kubernetes_asyncio, and runs credential plugins itself.

`find_cluster_config` imports this module only if there is a kubeconfig. The library's loader implements the file format
(several files, inline and named certificates, OIDC). Its plugin runner has no time limit and blocks if a plugin prints
much, so `execplugin` replaces it.
"""

import asyncio
import importlib
import importlib.util
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, final
from urllib.parse import quote

from kaito.runtime.client.config import ClusterConfig, Credentials, TlsConfig
from kaito.runtime.client.execplugin import ExecCredentials, ExecPlugin
from kaito.runtime.client.proxy import find_proxy
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import ConfigurationError, TransportError
from kaito.runtime.logging import get_logger

REFRESH_SECONDS = 60.0
"""Interval of refreshing credentials: a token file may have changed, a token may be about to expire."""

_HEADER_NAME_SIGNS = "!#$&'*+-.^_`|~"
"""Characters that are not escaped in header names, besides letters and digits (RFC 7230, `tchar`, without `%`)."""

_REMOVED_PROVIDERS = {"gcp": "gke-gcloud-auth-plugin", "azure": "kubelogin"}
"""Built-in providers of older clients, and the credential plugins that replace them."""

_log = get_logger(__name__)


@contextmanager
def _without_generated_code() -> Generator[None]:
    """Imports the library's `config` package without its `client` package.

    The package's `__init__` imports 859 modules of generated models and API classes (0.5 s, 62 MiB measured), of which
    the loader uses none: it only sets attributes of a configuration object. Empty packages replace them during the
    import and are removed afterwards.
    """
    if "kubernetes_asyncio" in sys.modules:  # already imported by the embedding program
        yield
        return
    spec = importlib.util.find_spec("kubernetes_asyncio")
    if spec is None or spec.submodule_search_locations is None:
        message = "kubeconfig files need kubernetes-asyncio: pip install 'kaito-runtime[kubeconfig]'"
        raise ConfigurationError(message)
    package, client = ModuleType("kubernetes_asyncio"), ModuleType("kubernetes_asyncio.client")
    package.__path__ = list(spec.submodule_search_locations)
    client.__dict__.update(ApiClient=object, Configuration=object)
    sys.modules |= {package.__name__: package, client.__name__: client}
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == package.__name__]:
            del sys.modules[name]


def _library() -> ModuleType:
    with _without_generated_code():
        if "kubernetes_asyncio.config" not in sys.modules:
            openid = ModuleType("kubernetes_asyncio.config.openid")
            openid.__dict__.update(OpenIDRequestor=_openid_client)
            sys.modules[openid.__name__] = openid
        return importlib.import_module("kubernetes_asyncio.config.kube_config")


def _openid_client(*arguments: Any, **options: Any) -> Any:
    """Returns the library's client of an OIDC provider. It is imported when a token has to be refreshed, because it
    imports aiohttp (0.1 s, 8 MiB)."""
    with _without_generated_code():
        module = importlib.import_module("kubernetes_asyncio.config.openid")
    return module.OpenIDRequestor(*arguments, **options)


@dataclass
class _Target:
    """Receives the loader's results; the attributes are those of the library's `Configuration`."""

    api_key: dict[str, str] = field(default_factory=dict[str, str])
    host: str = ""
    ssl_ca_cert: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify_ssl: bool = True


@final
class _LoaderCredentials:
    """Token, token file, basic authentication or OIDC from the library's loader; refreshed once a minute."""

    def __init__(self, loader: Any, target: _Target) -> None:
        self._loader = loader
        self._target = target
        self._loaded_at = monotonic()
        self._refreshing = asyncio.Lock()

    async def header(self) -> str:
        """Returns the header; the last valid one while refreshing fails."""
        async with self._refreshing:
            if monotonic() - self._loaded_at >= REFRESH_SECONDS:
                await self._load()
        return self._current()

    async def renew(self, header: str) -> bool:
        """Refreshes the credentials, unless that happened after the request with `header` was sent."""
        async with self._refreshing:
            if self._current() == header:
                await self._load()
        return self._current() not in {"", header}

    def _current(self) -> str:
        return self._target.api_key.get("BearerToken", "")

    async def _load(self) -> None:
        self._loaded_at = monotonic()
        try:
            await self._loader.load_and_set(self._target)
        except Exception as error:  # noqa: BLE001 -- the library raises many types; the last token may still be valid
            _log.warning("credentials not refreshed, keeping the last ones", error=str(error))


async def load_kubeconfig(
    paths: str, context: str = "", *, environment: Mapping[str, str] = os.environ, strict_x509: bool = False
) -> ClusterConfig:
    """Loads the cluster configuration from kubeconfig files; `paths` is separated as `$KUBECONFIG`.

    The proxy variables of `environment` apply to clusters without `proxy-url`.

    Raises:
        ConfigurationError: The files do not exist or are invalid.
        TransportError: A credential plugin failed.
    """
    try:
        return await _load_config(_library(), paths, context, environment, strict_x509=strict_x509)
    except (ConfigurationError, TransportError):
        raise
    except Exception as error:  # the library raises ConfigException, AssertionError, TypeError, YAMLError, OSError …
        message = f"kubeconfig {paths} is invalid: {error}"
        raise ConfigurationError(message) from error


async def _load_config(
    library: ModuleType, paths: str, context: str, environment: Mapping[str, str], *, strict_x509: bool
) -> ClusterConfig:
    merger = library.KubeConfigMerger(paths)
    if merger.config is None:
        message = f"kubeconfig {paths} does not exist"
        raise ConfigurationError(message)

    def persist(_: object) -> None:
        merger.save_changes()  # kubectl uses the refreshed OIDC token, too

    loader: Any = library.KubeConfigLoader(
        config_dict=merger.config,
        config_base_path=None,
        active_context=context or None,
        config_persister=persist,
    )
    entry: Any = loader._user  # not exposed otherwise
    if entry is None:  # a context without a user, which the loader does not support
        entry = loader._user = library.ConfigNode("users", {})
    user: dict[str, Any] = entry.value
    described: dict[str, Any] = loader._cluster.value
    _refuse_removed_provider(user)
    target = _Target()
    credentials: Credentials
    if "exec" in user:
        loader._load_cluster_info()
        loader._set_config(target)
        directory = str(Path(entry.path or paths).parent)
        credentials = ExecCredentials(ExecPlugin(user["exec"], described, directory=directory))
        certificate, key = await credentials.certificate_files()
        target.cert_file, target.key_file = certificate or target.cert_file, key or target.key_file
    else:
        await loader.load_and_set(target)
        credentials = _LoaderCredentials(loader, target)
    return ClusterConfig(
        server=target.host,
        credentials=credentials,
        tls=TlsConfig(
            ca_file=target.ssl_ca_cert or "",
            certificate_file=target.cert_file or "",
            key_file=target.key_file or "",
            verify=target.verify_ssl,
            server_name=str(described.get("tls-server-name") or ""),  # release 33 of the library does not read it
            strict_x509=strict_x509,
        ),
        proxy=find_proxy(target.host, str(described.get("proxy-url") or ""), environment),  # nor this
        impersonation=_impersonation(user),
        namespace=str(loader.current_context["context"].get("namespace") or ""),
    )


def _refuse_removed_provider(user: Mapping[str, Any]) -> None:
    """Rejects the providers that client-go removed in 1.26: the library would run their programs without a time limit.

    Raises:
        ConfigurationError: The user entry names one of them.
    """
    provider: Mapping[str, Any] = user.get("auth-provider") or {}
    plugin = _REMOVED_PROVIDERS.get(str(provider.get("name") or ""))
    if plugin is not None:
        message = f"auth-provider {provider['name']} was removed from Kubernetes clients: use the exec plugin {plugin}"
        raise ConfigurationError(message)


def _impersonation(user: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Returns the impersonation headers of the user entry (client-go's `NewImpersonatingRoundTripper`).

    Raises:
        ConfigurationError: A uid, groups or extras without `as`; the server would reject every request.
    """
    name, uid = str(user.get("as") or ""), str(user.get("as-uid") or "")
    groups: list[str] = user.get("as-groups") or []
    extras: Mapping[str, list[str]] = user.get("as-user-extra") or {}
    if not name and (uid or groups or extras):
        message = "as-uid, as-groups and as-user-extra of a kubeconfig need as: the user to impersonate"
        raise ConfigurationError(message)
    headers = [("impersonate-user", name), ("impersonate-uid", uid)]
    headers += [("impersonate-group", group) for group in groups]
    headers += [
        (f"impersonate-extra-{quote(key, safe=_HEADER_NAME_SIGNS)}", value)
        for key, values in extras.items()
        for value in values
    ]
    return tuple((header, value) for header, value in headers if value)
