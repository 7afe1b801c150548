"""The ClientApp of the installed package fgl-app."""

from fgl_app.client_app import app

__all__ = ["app"]
