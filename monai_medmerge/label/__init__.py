"""MONAI Label: the tasks and the app with which its server labels, trains and infers with bundles of this package.

Import from the modules. Only `stand_ins`, `path_safe` and `uncertainty` work without MONAI Label; docs/label.md tells
how to install it.
"""
