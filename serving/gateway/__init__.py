"""The gateway: one OpenAI-compatible API over all models, as a pure ASGI app.

May not happen in here: Ray, Kubernetes, a database, vLLM. What the gateway needs of them is declared in `ports`, and
`serving.app` fits it in; so the whole app runs in tests against a fake upstream.
"""
