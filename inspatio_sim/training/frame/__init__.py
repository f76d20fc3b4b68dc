"""Views of made-up worlds go in; weights of the frame generator come out: pretraining, control, few steps."""
