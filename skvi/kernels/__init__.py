"""The few loops that numpy cannot vectorise, in Cython."""
