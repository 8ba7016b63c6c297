"""The dispatcher: events through actors, carried by tasks. Private; its public names are re-exported by `actorflow`."""
