"""What goes into production, and comes out of it again.

``gate`` says whether a run made something better, ``production`` changes what a deployed agent is given, ``canary``
watches a share of its runs that are given something new.
"""
