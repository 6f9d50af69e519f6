"""Pictures and pages.

The files of runs, records and rows come in; PNG and HTML files go out. It may import
all rooms of ``training`` before it: none of them imports this one.
"""
