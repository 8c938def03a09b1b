"""The process: `python -m config_distributor`, or the command `config-distributor`."""

from kaito.runtime import Manager, Settings
from kaito.runtime.clusters import ClusterSet, KubeconfigSecrets

from config_distributor.controller import Distributor

NAMESPACE = "config-distributor-clusters"
"""Of the Secrets with the kubeconfigs of the clusters."""


def main() -> None:
    """Runs until a signal."""
    clusters = ClusterSet("clusters", provider=KubeconfigSecrets(NAMESPACE))
    Manager(
        Settings.from_env("DISTRIBUTOR_"),
        controllers=Distributor(clusters).controllers(),
        clusters=[clusters],
        lease="config-distributor",
    ).run()


if __name__ == "__main__":
    main()
