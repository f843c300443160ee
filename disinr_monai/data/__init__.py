"""From a file to a case: listing, reading, retrospective simulation, coil maps (see ``docs/conventions.md``)."""
