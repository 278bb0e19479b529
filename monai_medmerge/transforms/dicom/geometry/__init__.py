"""Where frames lie in space: classic and enhanced objects, mosaics, nuclear medicine, and the stacks they make."""
