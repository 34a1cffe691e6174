"""Who a request is from when it brings a token of an identity provider instead of a key of the ledger.

May not happen in here: HTTP servers, a database, what anyone may do beyond what their token says.
"""
