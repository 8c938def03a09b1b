"""Controllers: sources fill a queue, workers empty it by calling a reconcile function.

`Controller` is the declaration a user writes; `Controller.every` and `Controller.keyed` are its sisters without a kind.
The manager turns each into a `Running` (`build`): an `Engine`, its sources and its shares in the caches.
"""

from kaito.runtime.controller.build import AnyController as AnyController, Services as Services, build as build
from kaito.runtime.controller.cache_needs import Elsewhere as Elsewhere, Need as Need, Sight as Sight
from kaito.runtime.controller.declaration import DEADLINE_SECONDS as DEADLINE_SECONDS, Controller as Controller
from kaito.runtime.controller.engine import Engine as Engine
from kaito.runtime.controller.keyed import Keyed as Keyed
from kaito.runtime.controller.outcome import DeadlineExceeded as DeadlineExceeded
from kaito.runtime.controller.periodic import Periodic as Periodic
from kaito.runtime.controller.running import Running as Running
from kaito.runtime.handler import label_key as label_key
