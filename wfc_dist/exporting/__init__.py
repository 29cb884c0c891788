"""What leaves a run: bases in other formats, verified; a hub repository; what differs between two models."""
