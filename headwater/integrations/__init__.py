"""Headwater as a part of other libraries: one module for each, which needs that library."""
