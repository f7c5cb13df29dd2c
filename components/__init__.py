"""The steps of the loop: one folder each, a core that anyone can call and a shell that KFP runs."""
