"""Serves create, update and patch.

The order is kube-apiserver's: decode, prune and default, mutating admission, metadata, validation, validating
admission, store. Admission may wait between load and store; a write that conflicts meanwhile is repeated unless the
client gave a resource version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kaito.apiserver import errors
from kaito.apiserver.admission.webhooks import Admission
from kaito.apiserver.apiextensions.conversion import Conversions
from kaito.apiserver.bodies import decode as bodies
from kaito.apiserver.builtin.rules import complete_new, complete_update, create_problems, update_problems
from kaito.apiserver.cel.rules import rule_errors
from kaito.apiserver.deletion import delete as deletion
from kaito.apiserver.patch.json_patch import json_patch, merge_patch
from kaito.apiserver.patch.managed_fields import plan_apply, record_write
from kaito.apiserver.patch.strategic import strategic_patch
from kaito.apiserver.patch.typed import repeated_items
from kaito.apiserver.reads import read as reads
from kaito.apiserver.registry.resources import Resource, view
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.server_state import Context, ServerState
from kaito.apiserver.registry.store import Stored
from kaito.apiserver.schema.structural import prune
from kaito.apiserver.schema.validation import validate
from kaito.apiserver.wire import HttpRequest, Json, Object, copy_json, is_list, is_object, part
from kaito.apiserver.writes import lifecycle

Managed: TypeAlias = list[Object] | None
"""`managedFields` computed by an apply; None to record the write afterwards."""
Change: TypeAlias = Callable[[Object], tuple[Object, Managed]]
"""Computes the desired object from the current one, in the version of the request."""

Guard: TypeAlias = Callable[[Target, Object, Object | None, Context], None]
"""Raises 403 for a privilege escalation. Arguments: new state, old state or None."""

ATTEMPTS = 5
"""Attempts of a patch that conflicts (`patch.go`, maxPatchConflicts)."""


class Writer:
    """The writing verbs of one server."""

    def __init__(self, state: ServerState, admission: Admission, conversions: Conversions, guard: Guard) -> None:
        self._state = state
        self._admission = admission
        self._conversions = conversions
        self._check_escalation = guard

    async def create(self, target: Target, request: HttpRequest, context: Context) -> Stored:
        """Creates the object in the body."""
        data = bodies.decode_object(request, target.resource, context)
        if part(data, "metadata").get("resourceVersion"):
            # kube-apiserver answers 500 here.
            raise errors.StatusError(500, "", "resourceVersion should not be set on objects to be created")
        bodies.match_url(data, target)
        return await self.create_object(target, data, context, generated=not data["metadata"].get("name"))

    async def create_object(
        self,
        target: Target,
        data: Object,
        context: Context,
        *,
        generated: bool = False,
        managed: Managed = None,
    ) -> Stored:
        """Creates an object that is decoded already (and perhaps came from an apply)."""
        resource, state = target.resource, self._state
        name = str(data["metadata"].get("name", ""))
        self._check_namespace(target, name)
        self._check_definition(target, name)
        bodies.prune_and_default(data, resource, context)
        if managed is not None:
            data["metadata"]["managedFields"] = managed
        else:
            record_write(state, resource, data, None, context, "")
        mutated = await self._admission.mutate(target, "CREATE", data, None, context)
        if mutated is not data:
            data = mutated
            bodies.prune_and_default(data, resource, context)
        lifecycle.prepare_create(state, resource, data)
        complete_new(state, resource, data)
        self._validate(resource, data, None)
        self._check_escalation(target, data, None, context)
        await self._admission.validate(target, "CREATE", data, None, context)
        stored_data = await self._to_storage_version(resource, data)
        key = (target.namespace, str(data["metadata"]["name"]))
        if state.store.get(resource.storage, key) is not None:
            raise (errors.generate_name_conflict if generated else errors.already_exists)(
                resource.group, resource.plural, key[1]
            )
        if context.dry_run:
            return await self._for_response(resource, Stored(key, 0, stored_data))
        return await self._for_response(resource, state.store.create(resource.storage, key, stored_data))

    async def _to_storage_version(self, resource: Resource, data: Object) -> Object:
        """Converts an object to the storage version."""
        if resource.converter is None or data["apiVersion"] == resource.stored_api_version:
            return bodies.to_storage(data, resource)
        stored_data = await self._conversions.to_storage(resource, data)
        if resource.storage_schema is not None:
            bodies.normalize(stored_data, resource.storage_schema)
        return stored_data

    async def _for_response(self, resource: Resource, stored: Stored) -> Stored:
        """Returns a written object after its view in the requested version exists."""
        await self._conversions.prepare(resource, [stored])
        return stored

    def _check_definition(self, target: Target, name: str) -> None:
        """Raises 403 for the creation of an object whose definition is terminating, also by an apply."""
        definition = self._state.store.get(deletion.DEFINITIONS, ("", target.resource.storage))
        if definition is not None and definition.metadata.get("deletionTimestamp"):
            why = "create not allowed while custom resource definition is terminating"
            raise errors.forbidden(target.resource.group, target.resource.plural, name, why)

    def _check_namespace(self, target: Target, name: str) -> None:
        """Raises 404 or 403 for creation in a namespace that is missing or terminating."""
        if not target.resource.namespaced:
            return
        namespace = self._state.store.get("namespaces", ("", target.namespace))
        if namespace is None:
            raise errors.not_found("", "namespaces", target.namespace)
        if namespace.metadata.get("deletionTimestamp"):
            resource = target.resource
            why = f"unable to create new content in namespace {target.namespace} because it is being terminated"
            refusal = errors.forbidden(resource.group, resource.plural, name, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {target.namespace} is being terminated",
                "field": "metadata.namespace",
            }
            refusal.details = {**(refusal.details or {}), "causes": [cause]}
            raise refusal

    async def update(self, target: Target, request: HttpRequest, context: Context) -> tuple[Stored, bool]:
        """Replaces an object by the one in the body; reports whether a type that allows it was created instead."""
        sent = bodies.decode_object(request, target.resource, context)
        bodies.match_url(sent, target)

        def change(_current: Object) -> tuple[Object, Managed]:
            return copy_json(sent), None

        exists = self._state.store.get(target.resource.storage, (target.namespace, target.name)) is not None
        if not exists and target.resource.storage in lifecycle.CREATED_BY_UPDATE and not target.subresource:
            return await self.create_object(target, copy_json(sent), context), True
        return await self.change(target, change, context, patching=False), False

    async def patch(self, target: Target, request: HttpRequest, context: Context) -> tuple[Stored, bool]:
        """Patches an object with the type of patch that the Content-Type names; reports whether an apply created it."""
        kind = bodies.media_type(request)
        if kind.startswith("application/apply-patch"):
            return await self._apply(target, request, context)
        body = bodies.decode_body(request)
        apply: Callable[[Json, Json], Json]
        match kind:
            case "application/merge-patch+json":
                apply = merge_patch
            case "application/json-patch+json":
                apply = json_patch
            case "application/strategic-merge-patch+json" if not target.resource.custom:
                apply = strategic_patch(target.resource)
            case _:
                raise _patch_type_refused(kind)
        if kind != "application/json-patch+json" and not is_object(body):
            word = "array" if is_list(body) else "value"
            text = (
                f"error decoding patch: json: cannot unmarshal {word} into Go value of type map[string]interface {{}}"
            )
            raise errors.bad_request(text)

        def change(current: Object) -> tuple[Object, Managed]:
            patched = apply(current, body)
            if not is_object(patched):
                raise errors.bad_request("the patched document is not an object")
            return copy_json(patched), None

        return await self.change(target, change, context, patching=True), False

    async def _apply(self, target: Target, request: HttpRequest, context: Context) -> tuple[Stored, bool]:
        """Serves a server-side apply: merges the client's configuration into the object, or creates it."""
        state, resource = self._state, target.resource
        if not request.param("fieldManager"):
            missing = errors.required("fieldManager", "is required for apply patch")
            raise errors.invalid("meta.k8s.io", "PatchOptions", "", [missing])
        config = bodies.decode_object(request, resource, context, complete=True)
        check_configuration(config, resource)
        bodies.match_url(config, target)
        force = request.flag("force")

        def change(current: Object) -> tuple[Object, Managed]:
            live = current or None
            applied = plan_apply(state, resource, live, config, context, subresource=target.subresource, force=force)
            data = copy_json(applied.data)
            data["metadata"].pop("managedFields", None)
            return data, applied.managed

        if state.store.get(resource.storage, (target.namespace, target.name)) is None and not target.subresource:
            if config["metadata"].get("uid"):
                uid = config["metadata"]["uid"]
                why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise errors.conflict(resource.group, resource.plural, target.name, why)
            data, managed = change({})
            return await self.create_object(target, data, context, managed=managed), True
        return await self.change(target, change, context, patching=True), False

    async def change(
        self,
        target: Target,
        change: Change,
        context: Context,
        *,
        patching: bool,
        recorded_as: str = "",
    ) -> Stored:
        """Updates an object to its desired state; `recorded_as` is the subresource in its managed fields."""
        for attempt in range(ATTEMPTS):
            old = reads.find(self._state, target)
            await self._conversions.prepare(target.resource, [old])
            current = view(old, target.resource)
            wanted, managed = change(current)
            stated = _stated_version(wanted, current, patching=patching)
            data = await self._prepare(
                target, wanted, old, context, managed, patching=patching, recorded_as=recorded_as or target.subresource
            )
            stored_data = await self._to_storage_version(target.resource, data)
            now = self._state.store.get(target.resource.storage, old.key)
            if now is old:
                return await self._for_response(target.resource, self._commit(target, data, stored_data, old, context))
            if stated or attempt == ATTEMPTS - 1:
                break
        raise errors.conflict(target.resource.group, target.resource.plural, target.name)

    async def _prepare(
        self,
        target: Target,
        data: Object,
        old: Stored,
        context: Context,
        managed: Managed,
        *,
        patching: bool,
        recorded_as: str,
    ) -> Object:
        """Returns the next state, checked and admitted.

        Managed fields are computed before the server completes the object, as in kube-apiserver.
        """
        resource = target.resource
        bodies.check_kind(data, resource)
        bodies.match_url(data, target)
        bodies.prune_and_default(data, resource, context)
        if not patching and lifecycle.needs_resource_version(resource) and not data["metadata"].get("resourceVersion"):
            error = errors.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise errors.invalid(resource.group, resource.plural, target.name, [error])
        lifecycle.check_unchanged_identity(resource, data, old, patching=patching)
        previous = view(old, resource)
        if managed is None:
            record_write(self._state, resource, data, previous, context, recorded_as)
        elif managed:
            data["metadata"]["managedFields"] = managed
        shown = Stored(old.key, old.rv, previous)
        lifecycle.prepare_update(resource, data, shown, target.subresource)
        mutated = await self._admission.mutate(target, "UPDATE", data, previous, context)
        if mutated is not data:
            data = mutated
            bodies.prune_and_default(data, resource, context)
            lifecycle.prepare_update(resource, data, shown, target.subresource)
        complete_update(self._state, resource, data, previous, target.subresource)
        found = lifecycle.update_errors(resource, data, shown)
        found += update_problems(resource, data, previous, target.subresource)
        self._validate(resource, data, previous, found)
        self._check_escalation(target, data, previous, context)
        await self._admission.validate(target, "UPDATE", data, previous, context)
        return data

    def _validate(
        self, resource: Resource, data: Object, old: Object | None, earlier: list[errors.FieldError] | None = None
    ) -> None:
        """Raises 422 for an object that violates its metadata rules, its schema or its CEL rules."""
        found = list(earlier or ())
        if old is None:
            found += lifecycle.create_errors(resource, data) + create_problems(resource, data)
        if resource.custom and resource.schema is not None:
            schema_errors = validate(data, resource.schema) if old is None else validate(data, resource.schema, old=old)
            found += schema_errors
            found += unchecked(found) or rule_errors(data, resource.schema, old)
        if found:
            raise errors.invalid(resource.group, resource.kind, str(data["metadata"].get("name", "")), found)

    def _commit(self, target: Target, data: Object, stored_data: Object, old: Stored, context: Context) -> Stored:
        resource = target.resource
        previous = view(old, resource)
        for state in (data, stored_data):
            state["metadata"]["resourceVersion"] = old.metadata["resourceVersion"]
        if same_but_times(data, previous):
            return old
        if context.dry_run:
            return Stored(old.key, old.rv, stored_data)
        if deletion.finished(resource, stored_data, old):
            self._state.store.remove(resource.storage, old, stored_data)
            return Stored(old.key, old.rv, stored_data)
        return self._state.store.replace(resource.storage, old, stored_data)


_BLOCKING = frozenset(
    {
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)


def unchecked(found: list[errors.FieldError]) -> list[errors.FieldError]:
    """Returns the notice that CEL rules were not evaluated, when the errors leave values they could not handle."""
    if not any(error.reason in _BLOCKING for error in found):
        return []
    notice = (
        "some validation rules were not checked because the object was invalid; "
        "correct the existing errors to complete validation"
    )
    return [errors.invalid_value("<nil>", None, notice)]


def check_configuration(config: Object, resource: Resource) -> None:
    """Rejects an applied configuration with managed fields or with fields that its schema does not declare."""
    metadata: Object = config.get("metadata") or {}
    if metadata.get("managedFields") is not None:
        raise errors.bad_request("metadata.managedFields must be nil")
    if resource.ownership_schema is None:
        return
    unknown = prune(copy_json(config), resource.ownership_schema)
    name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
    where = f"({name}; {resource.group}/{resource.version}, Kind={resource.kind})"
    if unknown:
        problems = [f".{path}: field not declared in schema" for path in unknown]
        text = problems[0] if len(problems) == 1 else "errors:\n" + "\n".join(f"  {problem}" for problem in problems)
        raise errors.StatusError(500, "", f"failed to create typed patch object {where}: {text}")
    twice = repeated_items(config, resource.ownership_schema)
    if twice:
        path, key = twice[0]
        text = f"{path}: duplicate entries for key {key}"
        raise errors.StatusError(500, "", f"failed to create typed patch object {where}: {text}")


def same_but_times(data: Object, previous: Object) -> bool:
    """Returns whether a write changes nothing but the times of its managed fields: then it is not stored."""
    if {**data, "metadata": None} != {**previous, "metadata": None}:
        return False
    return _without_times(data["metadata"]) == _without_times(previous["metadata"])


def _without_times(metadata: Object) -> Object:
    managers: list[Object] = metadata.get("managedFields") or []
    plain = [{key: value for key, value in manager.items() if key != "time"} for manager in managers]
    return {**metadata, "managedFields": plain}


def _stated_version(wanted: Object, current: Object, *, patching: bool) -> bool:
    metadata: Json = wanted.get("metadata")
    stated = metadata.get("resourceVersion") if is_object(metadata) else None
    return bool(stated) and not (patching and stated == current["metadata"]["resourceVersion"])


def _patch_type_refused(kind: str) -> errors.StatusError:
    if kind == "application/strategic-merge-patch+json":
        known = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        return errors.unsupported_media_type(known)
    return errors.StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})
