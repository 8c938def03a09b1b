"""Prices of instance types: the price book and its sources.

The sources, in the order in which `book.PriceBook` reads them:

    the user's table       `table`: a YAML file or a ConfigMap
    the cloud's price API  `azure_retail`: Azure's public retail prices, with a cache
    the table of Kaito     `shipped`: `data/azure.yaml`, a snapshot

A price that no source contains is unknown, which is never the same as 0. Only `azure_retail` uses the network. The
command line and the workspace controller call this package; it imports neither.
"""
