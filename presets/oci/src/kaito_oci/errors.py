"""Exceptions of the programs that run in pods, with the exit code of each.

ProgramError                exit 1
├── ConfigurationError      exit 2: a flag, a file or the environment
├── NotAnAdapter            exit 3: a directory or an image does not contain an adapter
├── NotAModel               exit 3: a directory, repository or artifact does not contain a model that an engine loads
├── RegistryError           exit 5: a registry request failed, after retries
│   └── CredentialsRejected exit 4: the registry rejects the credentials
└── InsufficientDisk        exit 7: the free disk space is smaller than the files

`kaito_presets.errors` continues the list for the servers and the tuning job.
"""


class ProgramError(Exception):
    """Base class of the errors that a program reports in one line."""

    exit_code = 1


class ConfigurationError(ProgramError):
    """A flag, a configuration key or an environment variable is wrong. A retry does not help."""

    exit_code = 2


class NotAnAdapter(ProgramError):
    """The directory or image does not contain the files of an adapter."""

    exit_code = 3


class NotAModel(ProgramError):
    """The directory, repository or artifact does not contain the files of a model, or one of them is damaged."""

    exit_code = 3


class RegistryError(ProgramError):
    """A registry request failed, after retries of temporary failures."""

    exit_code = 5


class CredentialsRejected(RegistryError):
    """The registry rejects the credentials, or requires some. A retry does not help."""

    exit_code = 4


class InsufficientDisk(ProgramError):
    """The free disk space is smaller than the files. The message contains both sizes."""

    exit_code = 7
