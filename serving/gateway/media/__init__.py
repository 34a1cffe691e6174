"""Pictures and sounds that requests name by URL: gateways fetch them, engines never do.

The gateway checks a URL once, connects to the very address that it has checked, and hands the bytes on inside the
request as a data URL. So engines need no way out of the cluster, nothing is resolved twice, and a host that answers
one thing to a check and another to the fetch gains nothing. Engines are started so that they refuse every other URL by
themselves. May not happen in here: decoding pictures, keeping them.
"""
