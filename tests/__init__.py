"""Tests of actorflow; they mirror the package."""
