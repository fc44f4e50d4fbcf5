"""Pages and tables of the report; each page runs as `python -m prunecal.report.<page>`."""
