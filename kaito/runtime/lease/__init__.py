"""Leader election with a Lease, and a fence: one replica works, and it writes only while it holds the lease.

`Elector` is the algorithm. `ThreadLeadership` runs it in a separate thread (production), `LocalLeadership` in the main
loop (virtual time). The manager chooses; users only name the lease: `Manager(..., lease="memcached-operator")`.
"""

from kaito.runtime.lease.elector import Elector as Elector, LeaseTerms as LeaseTerms
from kaito.runtime.lease.local import LocalLeadership as LocalLeadership
from kaito.runtime.lease.thread import ThreadLeadership as ThreadLeadership
