"""The report of a load test: built from the raw records, shown as JSON, as a table and as one HTML file.

Nothing in here may import gevent or open a socket: a report can be made again, anywhere, from the files of a
run.
"""

from loadtests.report.build import build
from loadtests.report.html import render_html
from loadtests.report.model import Report
from loadtests.report.summary import print_summary

__all__ = ["Report", "build", "print_summary", "render_html"]
