"""The sections of a report, in the order of the loop: each turns what a step left behind into what its template shows."""
