"""Which certificates there should be: the state that replicas share, and the next state after it. Pure.

Replicas keep the state in one Secret and all apply `next_state`; the optimistic lock decides who writes. A rotation of
the CA takes three steps, with time between them for every reader to follow, so that no handshake fails:

1. a new CA joins the bundle that API servers trust; the serving certificate stays as it is;
2. `PROPAGATION` later a serving certificate signed by the new CA replaces the old one;
3. `OVERLAP` later, when every replica serves it, the old CA leaves the bundle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kaito.runtime.certs.authority import Pair, new_authority, new_leaf

PROPAGATION = timedelta(minutes=10)
"""From a CA's arrival in the bundle until it signs: replicas copy the bundle into the webhook configurations every few
seconds, API servers follow them by watch."""

OVERLAP = timedelta(hours=1)
"""From a serving certificate's issue until the CA of the one before it goes: replicas follow within seconds."""


@dataclass(frozen=True, slots=True)
class State:
    """What the Secret holds: trusted CAs, oldest first, and the certificate to serve with."""

    authorities: tuple[Pair, ...] = ()
    leaf: Pair | None = None

    @property
    def bundle(self) -> bytes:
        """Every trusted CA, PEM: the `caBundle` of webhook configurations."""
        return b"".join(authority.certificate for authority in self.authorities)

    @property
    def issuer(self) -> Pair | None:
        """The CA that signed the leaf."""
        if self.leaf is None:
            return None
        leaf = self.leaf
        return next((each for each in self.authorities if leaf.is_signed_by(each)), None)


def next_state(state: State, *, name: str, names: Sequence[str], now: datetime) -> State:
    """The state as it should be now; equal to `state` when nothing is due.

    Args:
        state: what there is.
        name: common name of a new CA.
        names: host names and addresses to serve under.
        now: wall time.
    """
    authorities = tuple(authority for authority in state.authorities if authority.expires_at > now)
    if not authorities or authorities[-1].is_due(now):
        authorities = (*authorities, new_authority(name, now))
    state = replace(state, authorities=authorities)
    signer = _signer(state, now)
    leaf = state.leaf
    if leaf is None or not leaf.is_signed_by(signer) or leaf.is_due(now):
        return replace(state, leaf=new_leaf(signer, names, now))
    missing = [each for each in names if each not in leaf.names()]
    if missing:  # old names stay until the next renewal: replicas of two releases must not undo each other's work
        return replace(state, leaf=new_leaf(signer, [*names, *sorted(leaf.names() - set(names))], now))
    if now >= leaf.issued_at + OVERLAP:
        kept = tuple(each for each in authorities if each == signer or each.issued_at > signer.issued_at)
        return replace(state, authorities=kept)
    return state


def _signer(state: State, now: datetime) -> Pair:
    """The newest CA that everybody trusts by now; the oldest if none is known for long enough."""
    known = [authority for authority in state.authorities if now >= authority.issued_at + PROPAGATION]
    return known[-1] if known else state.authorities[0]
