"""The admin API: what the command line does to keys and tenants, over HTTP, for keys with the scope `admin`.

Listens on an address of its own. May not happen in here: Ray, the gateway, SQL beyond what the ledger offers.
"""
