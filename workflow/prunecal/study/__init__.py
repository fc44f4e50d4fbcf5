"""A study's settings, the cells that they define, and the resources that these need."""
