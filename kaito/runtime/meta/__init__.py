"""Common types of the Kubernetes API: objects, keys, conditions, selectors. Pure data without I/O."""

from kaito.runtime.meta.condition import (
    Condition as Condition,
    ConditionStatus as ConditionStatus,
    condition_of as condition_of,
    find_condition as find_condition,
    remove_condition as remove_condition,
    set_condition as set_condition,
)
from kaito.runtime.meta.key import GroupVersionKind as GroupVersionKind, ObjectKey as ObjectKey
from kaito.runtime.meta.model import (
    IntOrString as IntOrString,
    MicroTime as MicroTime,
    Model as Model,
    Time as Time,
    Timestamp as Timestamp,
    format_time as format_time,
    wire_name as wire_name,
)
from kaito.runtime.meta.quantity import Quantity as Quantity
from kaito.runtime.meta.resource import (
    ObjectMeta as ObjectMeta,
    OwnerReference as OwnerReference,
    Resource as Resource,
)
from kaito.runtime.meta.selector import (
    LabelSelector as LabelSelector,
    LabelSelectorRequirement as LabelSelectorRequirement,
    Operator as Operator,
)
