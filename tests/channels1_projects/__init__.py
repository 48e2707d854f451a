"""Three projects as the guide of Channels 1.1 had them written in 2016.

scripts/test_1x.py and scripts/test_patch.py run them. They are written for Django 1.10, and run
unmodified on 1.10 and 1.11. For newer Djangos, `versions.py` has what Django itself no longer takes. No line
of a project differs for this package.

* multichat: rooms, commands in JSON frames, logins; Redis, Daphne and `runworker`.
* liveblog: posts that are sent to a group as they are saved; Redis, and `runserver` with a worker.
* databinding: a model that two pages show and change; in memory, `runserver` alone.
"""
