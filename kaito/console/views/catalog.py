"""The models of the catalog, and the instance types with their prices."""

from kaito.console.views.json_values import Json, number
from kaito.models import catalog, instance_types
from kaito.models.gpu import GIB, InstanceType
from kaito.models.preset import Preset
from kaito.prices.book import PriceBook
from kaito.prices.price import Offering


def catalog_json(book: PriceBook, *, cloud: instance_types.Cloud, region: str) -> Json:
    """Returns the catalog. Prices are unknown without a region."""
    return {
        "models": [_model(preset) for preset in catalog.presets()],
        "currency": book.currency,
        "instanceTypes": [_type(each, book, cloud, region) for each in instance_types.instance_types(cloud)],
    }


def _model(preset: Preset) -> Json:
    return {
        "name": preset.name,
        "family": preset.family,
        "license": preset.license,
        "parameters": round(preset.parameters * 1e9) or None,
        "context": preset.context or None,
        "sizeBytes": int(preset.weights) or None,
        "tuning": preset.tuning is not None,
        "runtime": [name for name in ("vllm", "transformers") if getattr(preset, name) is not None],
        "gated": preset.gated,
    }


def _type(instance: InstanceType, book: PriceBook, cloud: str, region: str) -> Json:
    price = book.find_offline(Offering(cloud, region, instance.name)) if region else None
    return {
        "name": instance.name,
        "gpus": instance.gpus,
        "gpuModel": instance.gpu.name,
        "gpuMemoryGiB": instance.memory_per_gpu // GIB,
        "hourly": number(price.per_hour) if price is not None else None,
    }
