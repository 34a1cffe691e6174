"""What Flotilla tells Prometheus and its logs: metric names, labels and buckets as data, and the exporter.

May not happen in here: deciding anything, reading the ledger's database (the exporter is handed a function that does).
"""
