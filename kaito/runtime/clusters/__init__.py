"""Clusters that come and go while the manager runs.

    members = ClusterSet("members", provider=KubeconfigSecrets("fleet", labels={"example.com/cluster": "true"}))
    controller = (
        Controller(Placement, reconcile)
        .watches(ConfigMap, to=placements_of, cluster=members)
        .receives(members.changes(Placement))
    )
    Manager(settings, controllers=[controller], clusters=[members], lease="placer").run()

A `ClusterSet` has the clusters of a provider (`KubeconfigSecrets`: one for each Secret with a kubeconfig) and those
that the program adds with `add`. Each is a `Member` with client, cache and events. A member that cannot be reached
affects neither the others nor the manager's start and readiness. Lease and webhooks belong to the manager's cluster.
"""

from kaito.runtime.client.config import ClusterConfig as ClusterConfig
from kaito.runtime.clusters.cluster_set import ClusterProvider as ClusterProvider, ClusterSet as ClusterSet
from kaito.runtime.clusters.kubeconfig import (
    KubeconfigRefused as KubeconfigRefused,
    parse_kubeconfig as parse_kubeconfig,
)
from kaito.runtime.clusters.member import Member as Member
from kaito.runtime.clusters.member_objects import (
    ClusterKey as ClusterKey,
    ClusterRequest as ClusterRequest,
    same_object as same_object,
)
from kaito.runtime.clusters.outcomes import Outcomes as Outcomes
from kaito.runtime.clusters.secrets import KubeconfigSecrets as KubeconfigSecrets
from kaito.runtime.errors import ClusterRemoved as ClusterRemoved, ClusterUnavailable as ClusterUnavailable
