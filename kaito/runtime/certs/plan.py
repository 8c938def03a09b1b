"""Computes the next state of the certificates that the replicas share. Pure functions.

All replicas store the state in one Secret and apply `next_state`; optimistic locking selects the writer. A rotation of
the CA has three steps, with enough time between them for every reader, so that no handshake fails:

1. a new CA is added to the bundle that API servers trust; the serving certificate does not change;
2. after `PROPAGATION` a serving certificate that the new CA signed replaces the old one;
3. after `OVERLAP`, when every replica serves it, the old CA is removed from the bundle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kaito.runtime.certs.authority import KeyPair, new_authority, new_leaf

PROPAGATION = timedelta(minutes=10)
"""Time from the addition of a CA to the bundle until it signs: replicas write the bundle into the configurations every
few seconds, and API servers watch the configurations."""

OVERLAP = timedelta(hours=1)
"""Time from the issue of a serving certificate until the previous CA is removed: replicas load it within seconds."""


@dataclass(frozen=True, slots=True)
class CertificateState:
    """The content of the Secret: trusted CAs, oldest first, and the serving certificate."""

    authorities: tuple[KeyPair, ...] = ()
    leaf: KeyPair | None = None

    @property
    def bundle(self) -> bytes:
        """All trusted CAs as PEM: the `caBundle` of webhook configurations."""
        return b"".join(authority.certificate for authority in self.authorities)

    @property
    def issuer(self) -> KeyPair | None:
        """The CA that signed the serving certificate."""
        if self.leaf is None:
            return None
        leaf = self.leaf
        return next((each for each in self.authorities if leaf.is_signed_by(each)), None)


def next_state(state: CertificateState, *, name: str, names: Sequence[str], now: datetime) -> CertificateState:
    """The next state; equal to `state` if nothing is due.

    Args:
        state: the current state.
        name: common name of a new CA.
        names: host names and addresses of the server.
        now: wall time.
    """
    authorities = tuple(authority for authority in state.authorities if authority.expires_at > now)
    if all(authority.is_early(now) for authority in authorities) or authorities[-1].is_due(now):
        authorities = (*authorities, new_authority(name, now))
    state = replace(state, authorities=authorities)
    signer = _signer(state, now)
    leaf = state.leaf
    if leaf is None or not leaf.is_signed_by(signer) or leaf.is_due(now) or leaf.is_early(now):
        return replace(state, leaf=new_leaf(signer, names, now))
    missing = [each for each in names if each not in leaf.names()]
    if missing:  # keep the old names until the next renewal: replicas of two releases would otherwise loop
        return replace(state, leaf=new_leaf(signer, [*names, *sorted(leaf.names() - set(names))], now))
    if now >= leaf.issued_at + OVERLAP:
        return replace(state, authorities=authorities[authorities.index(signer) :])
    return state


def _signer(state: CertificateState, now: datetime) -> KeyPair:
    """The newest CA that all API servers trust by now; the oldest if none has been in the bundle for long enough."""
    valid = [authority for authority in state.authorities if not authority.is_early(now)]
    trusted = [authority for authority in valid if now >= authority.issued_at + PROPAGATION]
    return trusted[-1] if trusted else valid[0]
