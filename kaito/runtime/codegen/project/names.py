"""Checks the names of a project and of its kinds, and derives the names of Python modules and variables from them."""

import builtins
import keyword
import re
import sys
from typing import Final

NAME_LENGTH: Final = 40
KIND_LENGTH: Final = 32

_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_KIND = re.compile(r"[A-Z][A-Za-z0-9]*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_PLURAL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_VERSION = re.compile(r"v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?")
_PROTECTED_GROUPS: Final = ("k8s.io", "kubernetes.io")

_PACKAGES: Final = frozenset(
    {
        "aiohappyeyeballs",
        "aiohttp",
        "aiosignal",
        "annotated_types",
        "attr",
        "attrs",
        "celpy",
        "cffi",
        "chart",
        "cryptography",
        "frozenlist",
        "google_re2",
        "hatchling",
        "httptools",
        "idna",
        "jmespath",
        "kaito",
        "kubernetes_asyncio",
        "lark",
        "msgspec",
        "multidict",
        "mypy",
        "prometheus_client",
        "propcache",
        "pydantic",
        "pydantic_core",
        "pytest",
        "pytest_asyncio",
        "ruff",
        "samples",
        "structlog",
        "tests",
        "typing_extensions",
        "typing_inspection",
        "wheels",
        "yaml",
        "yarl",
    }
)
"""Folders of the project, and packages that it or the framework imports."""

_CLASSES: Final = frozenset(
    {
        "Admission",
        "Again",
        "AlreadyOwned",
        "Column",
        "Condition",
        "ConfigMap",
        "Controller",
        "False",
        "Field",
        "Invalid",
        "Model",
        "None",
        "ObjectMeta",
        "OwnerReference",
        "Request",
        "Resource",
        "Spoke",
        "True",
        "Webhook",
        "World",
    }
)
"""Classes that the modules of a kind import, and words of Python."""

_MODULES: Final = frozenset({"chart", "declarations"})
"""Modules of the project beside the packages of its kinds."""

_VARIABLES: Final = frozenset({"api", "changed", "controller", "error", "message", "reconcile", "request", "status"})
"""Names that the functions of a kind use."""


class NameProblem(ValueError):
    """A name cannot be used; the message contains it and the remedy."""


def check_name(name: str) -> None:
    """Checks the name of a project, which is that of its distribution, its image, its lease and its chart.

    Raises:
        NameProblem: it is not a DNS label, too long, or the name of another package.
    """
    if len(name) > NAME_LENGTH or not _NAME.fullmatch(name):
        raise NameProblem(
            f"name {name!r}: use at most {NAME_LENGTH} lower-case letters, digits and `-`, beginning with a letter"
        )
    package = package_of(name)
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or package in _PACKAGES:
        raise NameProblem(f"name {name!r}: {package} is another Python package or a keyword; use {name}-operator")


def package_of(name: str) -> str:
    """Returns the name of the Python package of a project."""
    return name.replace("-", "_")


def split_kind(text: str) -> tuple[str, str, str]:
    """Returns group, version and kind of `example.com/v1/Site`.

    Raises:
        NameProblem: a part is missing or cannot be used.
    """
    parts = text.split("/")
    if len(parts) != 3:
        raise NameProblem(f"kind {text!r}: write GROUP/VERSION/KIND, for example example.com/v1/Site")
    group, version, kind = parts
    _check_group(group)
    check_version(version)
    _check_kind(kind)
    return group, version, kind


def check_version(version: str) -> None:
    """Checks that a version has the form whose order Kubernetes knows.

    Raises:
        NameProblem: it has another form.
    """
    if not _VERSION.fullmatch(version):
        raise NameProblem(f"version {version!r}: use a version such as v1, v1beta1 or v1alpha1")


def check_plural(plural: str) -> None:
    """Checks the plural of a kind.

    Raises:
        NameProblem: it is not a DNS label that begins with a letter.
    """
    if len(plural) > 63 or not _PLURAL.fullmatch(plural):
        raise NameProblem(f"plural {plural!r}: use at most 63 lower-case letters, digits and `-`")


def plural_of(kind: str) -> str:
    """Returns the English plural of a kind in lower case: `sites`, `proxies`, `classes`."""
    word = kind.lower()
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in set("aeiou") | {""}:
        return f"{word[:-1]}ies"
    return f"{word}s"


def module_of(kind: str) -> str:
    """Returns the name of the package of a kind: `http_route` for HTTPRoute."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
    return f"{words}_kind" if words in _MODULES or keyword.iskeyword(words) else words


def variable_of(kind: str) -> str:
    """Returns the name of a variable for an object of a kind."""
    module = module_of(kind)
    return f"{module}_object" if module in _VARIABLES or hasattr(builtins, module) else module


def _check_group(group: str) -> None:
    labels = group.split(".")
    if len(group) > 253 or len(labels) < 2 or not all(_LABEL.fullmatch(each) for each in labels):
        raise NameProblem(f"group {group!r}: use a DNS name with a dot that you own, for example shop.example.com")
    if any(group == each or group.endswith(f".{each}") for each in _PROTECTED_GROUPS):
        raise NameProblem(
            f"group {group!r}: groups of k8s.io and kubernetes.io belong to Kubernetes; use your own domain"
        )


def _check_kind(kind: str) -> None:
    if len(kind) > KIND_LENGTH or not _KIND.fullmatch(kind):
        raise NameProblem(
            f"kind {kind!r}: use a singular word in CamelCase of at most {KIND_LENGTH} letters and digits, such as Site"
        )
    if kind in _CLASSES:
        raise NameProblem(f"kind {kind!r}: the framework has a class of this name; choose another, such as My{kind}")
