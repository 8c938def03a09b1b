"""Controllers: sources fill a queue, workers empty it by calling a reconcile function.

`Controller` is the declaration a user writes, `Controller.every` its periodic sister. The manager turns each into an
`Engine` (`build`) and runs it.
"""

from kaito.runtime.controller.build import Services as Services, build as build
from kaito.runtime.controller.declaration import DEADLINE_SECONDS as DEADLINE_SECONDS, Controller as Controller
from kaito.runtime.controller.engine import Engine as Engine
from kaito.runtime.controller.needs import Elsewhere as Elsewhere, Need as Need, Sight as Sight
from kaito.runtime.controller.outcome import DeadlineExceeded as DeadlineExceeded
from kaito.runtime.controller.periodic import Periodic as Periodic
from kaito.runtime.controller.running import Running as Running
from kaito.runtime.handler import label_key as label_key
