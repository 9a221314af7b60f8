"""Evidence: vectors run on the installed package, and reports of runs.

``selftest``  every known-answer vector in protocols/
``figures``   the report's pictures [matplotlib]
``report``    report.json and report.html of a run [jinja2]
"""
