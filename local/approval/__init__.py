"""The review desk: a page on loopback where a person decides on the drafts."""
