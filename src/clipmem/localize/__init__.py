"""Where memorization sits: in which tower, which layer, which unit; by hooks on models as their libraries made them."""
