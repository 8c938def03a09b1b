"""`KaitoSimulation`: both managers, the cluster and the cloud of one run, with actions, faults and invariants."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, final

from kaito.api import InferenceSet, Workspace, crds
from kaito.api.karpenter import Claim, Machine, NodeClaim
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.errors import CloudError
from kaito.prices.book import PriceBook
from kaito.provisioner import main as provisioner
from kaito.provisioner.flags import Invocation
from kaito.provisioner.settings import NodeApi as ClaimKinds, ProvisionerSettings
from kaito.runtime.kinds import Namespace
from kaito.runtime.manager import Manager
from kaito.runtime.testing.simulate import Finding, Limits, Operator, Process, Replica, Run, Simulation, StepKind
from kaito.runtime.webhook import Admission, Webhook
from kaito.simulation.choices import choice_actions
from kaito.simulation.cloud import SimulatedCloud
from kaito.simulation.cluster import ClusterControllers
from kaito.simulation.copies import SETS, Copies
from kaito.simulation.definitions import definition_actions, unless_removed
from kaito.simulation.faults import faults
from kaito.simulation.manifests import Object, name_of
from kaito.simulation.plans import REGION
from kaito.simulation.reference import Reference
from kaito.simulation.sets import set_actions
from kaito.simulation.tokens import token_faults
from kaito.simulation.upgrades import RELEASES, upgrade_actions
from kaito.simulation.workspaces import actions
from kaito.workspace import main as controller
from kaito.workspace.admission import workspace_webhook
from kaito.workspace.inference_sets.admission import inference_set_webhook
from kaito.workspace.settings import NodeApi, WorkspaceSettings

WORKSPACE_CONTROLLER: Final = "workspace-controller"
GPU_PROVISIONER: Final = "gpu-provisioner"

EFFECT_SECONDS: Final = 60.0
"""Time after the last fault until its effect is visible: a node whose machine has vanished is Unknown after 40 s."""

LED_SECONDS: Final = 30.0
"""Time in which a new leader reconciles everything once."""


@final
class KaitoSimulation(Simulation):
    """The world of one run; make a new one for each."""

    name = "kaito"
    limits = Limits(
        trouble_seconds=3600.0,
        converge_seconds=3 * 3600.0,
        rest_seconds=300.0,
        tear_down_seconds=3600.0,
    )
    expected_errors = (CloudError,)
    lagging = ("Workspace", "InferenceSet", "Machine", "NodeClaim", "Node", "Pod", "StatefulSet")

    cloud: SimulatedCloud
    controllers: ClusterControllers
    reference: Reference
    copies: Copies

    def __init__(
        self, *, trouble_seconds: float | None = None, rest_seconds: float | None = None, ends_early: bool = False
    ) -> None:
        """Takes the time in which steps happen, an hour by default, and the time of rest, five minutes by default.

        With `ends_early`, the trouble ends with the last fault.
        """
        self.limits = replace(self.limits, ends_early=ends_early)
        if trouble_seconds is not None:
            self.limits = replace(self.limits, trouble_seconds=trouble_seconds)
        if rest_seconds is not None:
            self.limits = replace(self.limits, rest_seconds=rest_seconds)
        self.webhook_hangs = 0
        """Number of active faults that make the webhook hang."""
        self.claim_kind: type[Claim] = Machine
        self.releases: dict[str, str] = {}
        """Releases of processes that were upgraded, by name of the process; the others are of the current one."""
        self._calm_since: float | None = None
        self.removed: set[str] = set()
        """Names of the definitions that an administrator has removed and not installed again."""
        self._settings = WorkspaceSettings(hub_endpoint="", installation_guard=False, region=REGION)

    @property
    def operators(self) -> Sequence[Operator]:
        """Both managers, with two replicas each."""
        return [
            Operator(name=WORKSPACE_CONTROLLER, manager=self._workspace_controller, lease=controller.LEASE),
            Operator(name=GPU_PROVISIONER, manager=self._gpu_provisioner, lease=provisioner.NAME),
        ]

    def _workspace_controller(self, replica: Replica) -> Manager:
        release = RELEASES[self.releases.get(replica.process.name, "current")]
        return controller.workspace_manager(
            self._settings.model_copy(update=release),
            replica.settings,
            mirrors_count=True,
            transport=replica.transport,
            clock=replica.clock,
            rng=replica.rng,
            tracer=replica.tracer,
        )

    def _gpu_provisioner(self, replica: Replica) -> Manager:
        azure = AzureSettings(
            subscription_id=self.cloud.simulator.settings.subscription_id,
            resource_group=self.cloud.simulator.settings.resource_group,
            cluster=self.cloud.simulator.settings.cluster,
            endpoint="http://simulator",
            credential_mode="fake",
        )
        kind = ClaimKinds.MACHINE if self.claim_kind is Machine else ClaimKinds.NODECLAIM
        invocation = Invocation(manager=replica.settings, provisioner=ProvisionerSettings(), azure=azure, node_api=kind)
        return provisioner.manager_for(
            invocation,
            (self.claim_kind,),
            transport=replica.transport,
            arm_transport=self.cloud.transport(replica.process),
            clock=replica.clock,
            rng=replica.rng,
            tracer=replica.tracer,
        )

    def actions(self) -> Sequence[StepKind]:
        """The actions of users, and the faults of Azure, nodes and pods."""
        controllers, provisioners = (each.processes for each in self.operators)
        users = [*actions(), *faults(), *choice_actions(), *set_actions(), *definition_actions()]
        users += [*token_faults(provisioners), *upgrade_actions([*controllers, *provisioners])]
        return [unless_removed(each) for each in users]

    async def prepare(self, run: Run) -> None:
        """Installs the kinds and the webhook, and starts the cloud and the stand-ins. Odd seeds use NodeClaims."""
        self.claim_kind = NodeClaim if run.scenario.seed % 2 else Machine
        api = NodeApi.NODECLAIM if run.scenario.seed % 2 else NodeApi.MACHINE
        self._settings = self._settings.model_copy(update={"node_api": api})
        run.world.install(*crds.manifests())
        run.world.put(Namespace.model_validate({"metadata": {"name": "team"}}))
        run.world.admit(self._webhook(), inference_set_webhook(self._settings, PriceBook()))
        self.cloud = SimulatedCloud(run)
        self.controllers = ClusterControllers(run)
        self.reference = Reference(run, self.cloud, self.claim_kind)
        self.copies = Copies(run, self._serves, self.reference.is_blocked)
        run.scope.spawn(self.cloud.work(), name="cloud")
        run.scope.spawn(self.controllers.work(), name="cluster")

    def _unsettled_leaders(self, run: Run) -> Iterator[str]:
        """Returns the operators without a leader, and those whose leader may not have reconciled everything yet."""
        leading = {each.operator.name for each in run.processes.values() if each.is_alive and each.holds_lease()}
        for operator in self.operators:
            if operator.name not in leading:
                yield f"no replica of {operator.name} leads"
            elif run.now - run.led_since(operator.lease) < LED_SECONDS:
                yield f"a replica of {operator.name} has begun to lead"

    def _webhook(self) -> Webhook[Workspace]:
        inner = workspace_webhook(self._settings, PriceBook())

        async def review(admission: Admission[Workspace]) -> None:
            if self.webhook_hangs:
                await asyncio.sleep(3600)  # the API server gives up earlier
            validate = inner.validate
            if validate is not None:
                waiting = validate(admission)
                if waiting is not None:
                    await waiting

        return Webhook(
            Workspace,
            default=inner.defaults,
            mutate=inner.mutate,
            validate=review,
            finalizer=inner.finalizer,
            mutate_path=inner.mutate_path,
            validate_path=inner.validate_path,
        )

    def _serves(self, workspace: Object) -> bool:
        return self.reference.actual(workspace)["InferenceReady"]

    def check(self, run: Run) -> Iterable[Finding]:  # noqa: ARG002 - the reference has it
        """Compares the state with the reference."""
        yield from self.reference.check()
        yield from self.copies.check()
        yield from self.cloud.requests.check(self.cloud.simulator.cluster.pools)
        yield from self.cloud.tokens.check()

    def sent(self, run: Run, process: Process, method: str, path: str) -> None:
        """Checks that a deletion of a claim has a cause."""
        if method == "DELETE" and "/karpenter.sh/" in path:
            text = self.reference.unjustified(path.rpartition("/")[2])
            if text:
                run.fail("no needed node is given back", f"{process.name} deletes {text}")

    def missing(self, run: Run) -> Iterable[str]:
        """What is not as users want it; called when all faults have ended."""
        self._calm_since = run.now if self._calm_since is None else self._calm_since
        if run.now - self._calm_since < EFFECT_SECONDS:
            yield "effects of the last faults may not be visible yet"
        yield from self._unsettled_leaders(run)
        yield from (f"the definition {name} is not installed" for name in sorted(self.removed))
        yield from self.copies.missing()
        yield from self.reference.missing()

    async def tear_down(self, run: Run) -> None:
        """Deletes all InferenceSets and Workspaces."""
        for inference_set in run.world.list(InferenceSet):
            await run.client.delete(inference_set)
        for workspace in run.world.list(Workspace):
            await run.client.delete(workspace)

    def left(self, run: Run) -> Iterable[str]:
        """What is left of deleted Workspaces."""
        yield from self.reference.left()
        yield from (name_of(each) for each in run.stored(SETS).values())
