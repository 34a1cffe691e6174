"""The console: one live page for who runs the fleet, on the admin API's address, for keys with the scope `admin`.

All open pages share one look at the fleet per tick. May not happen in here: anything that a request of the API waits
for, a look that grows with the number of pages, Ray, SQL.
"""
